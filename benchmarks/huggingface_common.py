"""transformers' own tests of its models, run on ours: what passes, what does not apply, and why.

    python benchmarks/huggingface_common.py TRANSFORMERS [ARCHITECTURE ...] [-k PART_OF_A_NAME]

TRANSFORMERS is the source of the version that is installed, unpacked: its distribution from the package index has the
common tests, its repository has those of generation and export too. They need the package `parameterized`.
Needs no network. Prints a table of counts, then each test that did not pass, under its reason.
"""

import argparse
import functools
import importlib
import os
import sys
import types
import unittest
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RUN_TRAINING_TESTS", "1")

import torch
import transformers
from command_common import existing_folder
from transformers.models.auto import modeling_auto

from solomonic import preset
from solomonic.hf import (
    SolomonicCache,
    SolomonicConfig,
    SolomonicForCausalLM,
    SolomonicForSequenceClassification,
    SolomonicForTokenClassification,
    SolomonicModel,
)
from solomonic.hf.model import SolomonicPreTrainedModel

CLASSES = {  # every model, and where transformers looks for its kind
    SolomonicForCausalLM: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    SolomonicModel: modeling_auto.MODEL_MAPPING_NAMES,
    SolomonicForSequenceClassification: modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    SolomonicForTokenClassification: modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
}
MIXINS = {
    "test_modeling_common": "ModelTesterMixin",
    "generation.test_utils": "GenerationTesterMixin",
    "test_training_mixin": "TrainingTesterMixin",
}
LEFT_OUT = {  # of the source distribution, which has the files of tests/ and not its folders; what stands in
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "utils.test_configuration_utils": {
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "dtype": "float16",
            "chunk_size_feed_forward": 5,
            "architectures": ["SolomonicForCausalLM"],
            "id2label": {0: "label"},
            "label2id": {"label": "0"},
            "bos_token_id": 6,
            "pad_token_id": 7,
            "eos_token_id": 8,
            "problem_type": "regression",
        }
    },
}

WITHOUT_A_MODEL = ("test_config", "test_inherits_generation_mixin")  # tests of the configuration and of the class
MADE: list[str] = []
"""A name for each model that was made since the test began."""


def count_models() -> None:
    """Note every model from here on in `MADE`; the class stays the one that is tested."""
    make = SolomonicPreTrainedModel.__init__

    @functools.wraps(make)
    def made(self, config):
        MADE.append(type(self).__name__)
        make(self, config)

    SolomonicPreTrainedModel.__init__ = made


class Tester:
    """What the common tests ask for: a small configuration and a batch."""

    batch_size, seq_length, is_training = 3, 11, True
    vocab_size, hidden_size, num_hidden_layers = 99, 32, 2
    causal_lm_class, base_model_class = SolomonicForCausalLM, SolomonicModel

    def __init__(self, architecture: str):
        self.architecture = architecture

    def get_config(self) -> SolomonicConfig:
        dials = dict(vocab_size=self.vocab_size, d_model=self.hidden_size, n_layers=self.num_hidden_layers)
        model = preset(self.architecture, **dials, window=7, capacity=6, state_size=8)
        return SolomonicConfig(model, pad_token_id=0, eos_token_id=2, bos_token_id=1)

    def prepare_config_and_inputs_for_common(self):
        tokens = torch.randint(3, self.vocab_size, (self.batch_size, self.seq_length))
        mask = torch.rand(tokens.shape) < 0.8
        mask[:, 0] = True
        return self.get_config(), {"input_ids": tokens, "attention_mask": mask.long()}


def mixins(source: Path) -> list[type]:
    """Those that the source has, and empty classes for the others."""
    sys.path.insert(0, str(source))
    for module, values in LEFT_OUT.items():
        file, path = source / "tests" / f"{module.replace('.', '/')}.py", f"tests.{module}"
        if not file.exists():
            print(f"not there: {file.relative_to(source)}")
            for name in (path.rpartition(".")[0], path):
                sys.modules.setdefault(name, types.ModuleType(name))
            vars(sys.modules[path]).update(values)
    if not (source / "tests" / "__init__.py").exists():  # which the tests of configurations import as transformers
        transformers.utils.direct_transformers_import = lambda path: transformers
    return [getattr(importlib.import_module(f"tests.{module}"), name) for module, name in MIXINS.items()]


def case(architecture: str, bases: list[type]) -> type[unittest.TestCase]:
    from tests.test_configuration_common import ConfigTester

    class WithDefault(SolomonicConfig):
        """The tests of configurations make some without arguments; ours want a model."""

        def __init__(self, model=None, **settings):
            super().__init__(model or Tester(architecture).get_config().model, **settings)

    def setUp(self):
        torch.manual_seed(0)
        self.model_tester = Tester(architecture)

    def test_config(self):
        properties = ["hidden_size", "num_hidden_layers", "vocab_size"]
        inputs = {"model": self.model_tester.get_config().model}
        ConfigTester(self, WithDefault, common_properties=properties, **inputs).run_common_tests()

    def check_cache(self, batch_size, past_key_values, seq_length, config):
        """In the place of the shapes of keys and values."""
        self.assertIsInstance(past_key_values, SolomonicCache)
        self.assertEqual(past_key_values.get_seq_length(), seq_length)
        self.assertEqual(len(past_key_values), config.num_hidden_layers)
        self.assertEqual({tensor.shape[0] for tensor in past_key_values.tensors()}, {batch_size})

    def check_caches_are_equal(self, cache1, cache2):
        for tensor, other in zip(cache1.tensors(), cache2.tensors(), strict=True):
            torch.testing.assert_close(tensor, other)

    body = dict(
        setUp=setUp,
        test_config=test_config,
        _check_past_key_values_for_generate=check_cache,
        _check_caches_are_equal=check_caches_are_equal,
        all_model_classes=tuple(CLASSES),
        has_attentions=False,
        test_can_init_all_missing_weights_before_2023=True,
        test_correct_missing_keys=unittest.skip("the module inside is no model of transformers")(lambda self: None),
        model_tester=None,
    )
    return type(f"{architecture}", (*bases, unittest.TestCase), body)


class Result(unittest.TestResult):
    """What became of each test, and the first 300 characters of the reason.

    A test that passed without making a model had nothing to test, but for those in `WITHOUT_A_MODEL`.
    """

    def __init__(self):
        super().__init__()
        self.outcome: dict[str, tuple[str, str]] = {}

    def startTest(self, test):
        super().startTest(test)
        MADE.clear()

    def addSuccess(self, test):
        super().addSuccess(test)
        tested = MADE or test._testMethodName in WITHOUT_A_MODEL
        self.note(test, "passed" if tested else "skipped", "" if tested else "passes over models of this kind")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped", reason)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note(test, "failed", error[1])

    def addError(self, test, error):
        super().addError(test, error)
        self.note(test, "failed", error[1])

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.note(test, "failed", error[1])

    def note(self, test, kind, reason):
        name = getattr(test, "test_case", test)._testMethodName  # a part of a test has the whole one in test_case
        before = self.outcome.get(name, ("", ""))[0]
        if before != "failed" and not (before == "skipped" and kind == "passed"):
            self.outcome[name] = (kind, " ".join(str(reason).split())[:300])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transformers", type=existing_folder)
    parser.add_argument("architectures", nargs="*", default=["bmojo", "mamba2", "transformer"])
    parser.add_argument("-k", default="", help="only tests with this in their name")
    args = parser.parse_args()
    for model, names in CLASSES.items():
        names["solomonic"] = model.__name__
    bases = mixins(existing_folder(args.transformers, "tests"))
    count_models()
    outcomes = {}
    for architecture in args.architectures:
        tests = unittest.defaultTestLoader.loadTestsFromTestCase(case(architecture, bases))
        result = Result()
        unittest.TestSuite(test for test in tests if args.k in test._testMethodName).run(result)
        outcomes[architecture] = result.outcome
    print(f"\ntransformers {transformers.__version__}, torch {torch.__version__}\n")
    print("| architecture | passed | skipped | failed |\n|---|---|---|---|")
    for architecture, outcome in outcomes.items():
        count = Counter(kind for kind, _ in outcome.values())
        print(f"| `{architecture}` | {count['passed']} | {count['skipped']} | {count['failed']} |")
    reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
    for architecture, outcome in outcomes.items():
        for name, (kind, reason) in outcome.items():
            if kind != "passed":
                reasons.setdefault((kind, reason), {}).setdefault(name, []).append(architecture)
    for (kind, reason), names in sorted(reasons.items()):
        print(f"\n{kind}: {reason}")
        for name, where in names.items():
            print(f"    {name}" + ("" if len(where) == len(outcomes) else f" ({', '.join(where)})"))
    return 1 if any(kind == "failed" for kind, _ in reasons) else 0


if __name__ == "__main__":
    sys.exit(main())
