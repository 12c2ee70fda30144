"""Folders of ours without a head for tokens: `AutoModel`, and classifiers of texts and of tokens."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from ..laws.cases import assert_close
from ..laws.cases import tokens as draw
from .models import padded, prompts

transformers = pytest.importorskip("transformers", minversion="5.23")
from transformers import AutoModel, AutoModelForCausalLM  # noqa: E402
from transformers import AutoModelForSequenceClassification as AutoClassifier  # noqa: E402
from transformers import AutoModelForTokenClassification as AutoTagger  # noqa: E402

from .test_model import saved  # noqa: E402


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["bmojo", "mamba2"])
def test_a_model_without_its_head(tmp_path, name, tied):
    saved(tmp_path / "m", name, tied)
    whole, model = (auto.from_pretrained(tmp_path / "m") for auto in (AutoModelForCausalLM, AutoModel))
    tokens, mask = padded(prompts([9, 4]), "left")
    out = model(tokens, attention_mask=mask)
    assert_close(whole.model.head(out.last_hidden_state), whole(tokens, attention_mask=mask).logits, "logits")
    assert model.get_output_embeddings() is None and model.get_input_embeddings().weight.shape == (257, 32)
    assert not any("head" in name for name in model.state_dict())
    more = model(tokens[:, :2], past_key_values=out.past_key_values).last_hidden_state
    assert_close(more[0], model(torch.cat([tokens[:1], tokens[:1, :2]], 1)).last_hidden_state[0, 9:], "with a cache")
    model.save_pretrained(tmp_path / "base")
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "base")(tokens, mask).last_hidden_state, out[0])
    if tied:
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "base")(tokens).logits, whole(tokens).logits)
    else:
        with pytest.raises(ValueError, match="model.head.weight is not there"):
            AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(260)
    assert model(torch.tensor([[259]])).last_hidden_state.shape == (1, 1, 32)


@pytest.mark.parametrize("tied", [True, False])
def test_a_classifier_of_texts(tmp_path, tied):
    """By the last real token, wherever the padding is; saved and loaded; every parameter is trained."""
    saved(tmp_path / "m", tied=tied)
    model = AutoClassifier.from_pretrained(tmp_path / "m", num_labels=3)
    assert isinstance(model.model, torch.nn.Module) and model.score.weight.std() > 0.05
    rows = prompts([9, 4])
    alone = torch.cat([model(row[None]).logits for row in rows])
    for side in ("left", "right", "inside"):
        tokens, mask = padded(rows, side)
        assert_close(model(tokens, attention_mask=mask).logits, alone, side)
        assert_close(model(inputs_embeds=model.get_input_embeddings()(tokens), attention_mask=mask).logits, alone, side)
    tokens, mask = padded(rows, "right", garbage=model.config.pad_token_id)
    assert_close(model(tokens).logits, alone, "no mask: up to the padding token")
    labels = torch.tensor([2, 0])
    loss = model(tokens, attention_mask=mask, labels=labels).loss
    assert_close(loss, cross_entropy(alone, labels), "loss")
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path / "classifier")
    assert torch.equal(
        AutoClassifier.from_pretrained(tmp_path / "classifier")(tokens, mask).logits, model(tokens, mask).logits
    )
    with pytest.raises(ValueError, match=r"(score|model.head).weight (has no place|is not there)"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "classifier")
    numbers = AutoClassifier.from_pretrained(tmp_path / "m", num_labels=1)
    expected = (numbers(tokens, mask).logits[:, 0] - torch.tensor([0.5, -1.0])).square().mean()
    assert_close(numbers(tokens, mask, labels=torch.tensor([0.5, -1.0])).loss, expected, "squared error")


def test_a_classifier_of_tokens(tmp_path):
    saved(tmp_path)
    model, x = AutoTagger.from_pretrained(tmp_path, num_labels=4), draw(2, 9)
    labels = (x % 4).masked_fill(torch.arange(9) < 2, -100)
    out = model(x, labels=labels)
    assert_close(out.loss, cross_entropy(out.logits[:, 2:].flatten(0, 1), labels[:, 2:].flatten()), "loss")
    counted = model(x, labels=labels, num_items_in_batch=28)
    assert_close(counted.loss, out.loss / 2, "loss of a part of a batch")
    assert_close(out.logits, model.score(AutoModel.from_pretrained(tmp_path)(x).last_hidden_state), "logits")


def test_what_a_loss_does_not_take_is_refused(tmp_path):
    saved(tmp_path)
    x, labels = draw(2, 9), torch.tensor([1, 0])
    base, texts, tagger = (auto.from_pretrained(tmp_path) for auto in (AutoModel, AutoClassifier, AutoTagger))
    for model, given in ((base, {}), (texts, {"labels": labels})):
        with pytest.raises(ValueError, match="num_items_in_batch: expected None"):
            model(x, num_items_in_batch=3, **given)
    with pytest.raises(ValueError, match="shift_labels: expected None"):
        tagger(x, labels=x % 2, shift_labels=x % 2)
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to=[])
    takes = [transformers.Trainer(model, arguments).model_accepts_loss_kwargs for model in (texts, tagger)]
    assert takes == [False, True]  # so that it divides by the number of steps itself, or gives the number of labels


def test_pipelines(tmp_path, caplog):
    saved(tmp_path)
    extract = transformers.pipeline("feature-extraction", model=str(tmp_path), device="cpu")
    assert torch.tensor(extract("hello")).shape == (1, 5, 32)
    classify = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu")
    both = classify(["hello", "a longer text"], batch_size=2)
    for got, text in zip(both, ("hello", "a longer text")):
        assert got["score"] == pytest.approx(classify(text)[0]["score"], rel=1e-4)
    write = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert write("", max_new_tokens=3)[0]["generated_text"] is not None  # goes on from the token that ends a document
