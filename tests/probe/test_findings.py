"""What a study found, in sentences: worth, nothing and harm, each with its number."""

import pytest

from solomonic.probe.findings import findings, uncertain, where


def study(*rows, layers=2, softmax=("window", "eidetic"), **more):
    """Of a model with `layers` layers: (layers, memory, bits more, standard error) of each ablation."""
    names = ("layers", "memory", "more_bits", "error")
    results = {
        "layers": ["bmojo"] * layers,
        "vocabulary": 256,
        "bits_per_token": 3.0,
        "groups": ["window", "fading", "eidetic"],
        "mass": [{"layer": at, "softmax": list(softmax), "mean": [0.75, 0.0, 0.25]} for at in range(layers)],
        "ablations": [dict(zip(names, row, strict=True)) for row in rows],
        "fading": [],
        "systems": [],
        "interventions": [],
    }
    return results | more


@pytest.mark.parametrize(
    "more, error, sentence",
    [
        (0.64, 0.018, "is worth 0.640 ± 0.036 bits a token: without it the loss is 3.640."),
        (
            -0.0009,
            0.0008,
            "is worth nothing on this text: without it the loss changes by -0.0009 ± 0.0016 bits a token",
        ),
        (0.0, 0.0, "is worth nothing on this text: without it the loss changes by 0.000 ± 0.000 bits a token"),
        (-0.0028, 0.0009, "does harm on this text: without it the loss changes by -0.0028 ± 0.0018 bits a token."),
    ],
)
def test_each_memory_is_worth_something_nothing_or_less(more, error, sentence):
    rows = ([0], "eidetic", 9.0, 0.1), ([0], "fading", more, error), ([0, 1], "eidetic", more, error)
    fading, eidetic, *_ = findings(study(*rows))
    assert fading.startswith(f"The fading memory (layer 0) {sentence}")
    assert eidetic.startswith(f"The eidetic memory (both layers) {sentence}")
    nothing = "worth nothing" in sentence
    assert ("though 25 % of the attention falls on it" in eidetic) == nothing and "attention" not in fading


def test_the_loss_and_what_chance_would_have():
    sentences = findings(study(([0], "window", 1.0, 0.1), layers=1))
    assert sentences[1:] == [
        "The loss of the whole model is 3.000 bits a token; a guess among its 256 tokens takes 8.000.",
        "± is two standard errors, over blocks of 128 tokens.",
    ]


def test_layers_have_names():
    assert where({"layers": [3]}, study(layers=4)) == "layer 3"
    assert where({"layers": [0, 2, 3]}, study(layers=4)) == "layers 0, 2 and 3"
    assert where({"layers": [0, 1, 2]}, study(layers=3)) == "all 3 layers"


@pytest.mark.parametrize(
    "value, error, expected",
    [(1, 0.3, "1.000 ± 0.600"), (0.5, 1e-9, "0.500000 ± 0.000000"), (-1e-9, 0.001, "0.0000 ± 0.0020"), (30, 9, "30.000 ± 18.000")],
)  # fmt: skip
def test_digits_are_those_of_the_error(value, error, expected):
    assert uncertain(value, error) == expected


def test_what_changes_in_generation():
    def taken(memory, layer, agrees):
        return {"memory": memory, "layer": layer, "how": "without", "agrees": agrees}

    intact = {"memory": None, "layer": None, "how": "intact", "agrees": 64}
    entries = [intact, taken("window", 0, 64), taken("fading", 0, 9), taken("fading", 1, 3), taken("eidetic", 0, 64)]
    assert findings(study(interventions=entries))[-1] == (
        "Of 64 tokens generated after half of the text, none changes without the eidetic memory or the window of any one "
        "layer; they change from token 4 without the fading memory of layer 1."
    )


def test_how_long_and_how_much_a_fading_memory_holds():
    entry = {
        "layer": 0,
        "memory": "mamba2",
        "states": 32,
        "order": [3, 27],
        "horizon": {"1/e": [2, 81], "1 %": [6, None]},
    }
    system = {"memory": "mamba2", "effective": 4, "explained": {"0": -0.5, "4": 0.385}}
    first, *rest = findings(study(fading=[entry], systems=[system]))[-3:]
    assert "1/e is left after 2 to 81 tokens and 1 % is left after 6 tokens to beyond the text" in first
    assert rest == [
        "A head writes and later reads 3 to 27 of its 32 states.",
        "A linear system explains 38 % of the variance of what a fading memory puts out; 4 states are enough for it.",
    ]
    other = system | {"memory": "mamba3"}
    sentences = findings(study(fading=[entry], systems=[system, other]))
    assert "How long mamba3 remembers is not measured: its decays are not read yet." in sentences
    entry |= {"order": None, "horizon": {"1/e": [None, None], "1 %": [None, None]}}
    assert "more tokens than the text has" in findings(study(fading=[entry]))[-1]
