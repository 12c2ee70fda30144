"""LoRA on every projection, and short runs of Hugging Face's Trainer and of TRL's."""

import json

import pytest
import torch
from torch import nn

from solomonic import PRESETS, LanguageModel, preset
from solomonic.checkpoints import folder
from solomonic.data.tokenizer import Tokenizer

from ..laws.cases import assert_close
from ..laws.cases import tokens as draw
from .models import padded, prompts, wrapper_of

transformers = pytest.importorskip("transformers", minversion="5.23")
peft = pytest.importorskip("peft")
from solomonic.hf import SolomonicForCausalLM  # noqa: E402

LINES = ["abc abc abc", "a longer line of text", "the same again and again", "xyz"] * 4


@pytest.fixture(autouse=True)
def not_deterministic(poisoned_memory):
    """Trainers seed for themselves, and set this flag as they like."""
    torch.use_deterministic_algorithms(False)


def small(path, name="bmojo"):
    """A wrapped model of bytes and the folder it came from."""
    torch.manual_seed(0)
    model = LanguageModel(preset(name, vocab_size=257, d_model=32, n_layers=2, window=7, capacity=6))
    folder.save(path, model, Tokenizer.for_bytes())
    return SolomonicForCausalLM.from_pretrained(path)


def adapted(model, **settings):
    """LoRA whose matrices are both away from zero."""
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("name", PRESETS)
def test_lora_on_every_projection(tmp_path, name):
    base, x = wrapper_of(name), draw(2, 11)
    linear = {n for n, m in base.named_modules() if isinstance(m, nn.Linear) and m is not base.get_output_embeddings()}
    before = base(x).logits
    model = adapted(base, target_modules="all-linear")
    adapters = {n.removeprefix("base_model.model.").rpartition(".lora_A")[0] for n, _ in model.named_parameters()}
    assert adapters - {""} == linear
    logits = model(x).logits
    assert (logits - before).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.equal(model(x).logits, before)
    model.zero_grad()
    model(x, labels=x).loss.backward()
    for n, p in model.named_parameters():
        assert (p.grad is not None and p.grad.abs().sum() > 0) == ("lora_" in n), n
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(wrapper_of(name), tmp_path)
    assert_close(again(x).logits, logits, "saved adapters")
    tokens, mask = padded(prompts([9, 4]), "right")
    settings = dict(attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
    generated = model.generate(input_ids=tokens, **settings)
    merged = model.merge_and_unload()
    assert isinstance(merged, SolomonicForCausalLM)
    assert_close(merged(x).logits, logits, "merged")
    assert torch.equal(merged.generate(tokens, **settings), generated)


def test_lora_on_named_projections():
    model = adapted(wrapper_of("bmojo"), target_modules=["project.q", "project.v", "mlp.down"])
    names = {n.split(".lora_")[0].split("blocks.")[1] for n, _ in model.named_parameters() if "lora_A" in n}
    assert names == {f"{i}.{part}" for i in (0, 1) for part in ("mixer.project.q", "mixer.project.v", "mlp.down")}
    x = draw(2, 11)
    logits = model(x).logits
    assert_close(model.merge_and_unload()(x).logits, logits, "merged")


@pytest.mark.parametrize("reentrant", [True, False])
def test_lora_with_gradient_checkpointing(reentrant):
    model, x = adapted(wrapper_of("bmojo"), target_modules="all-linear").train(), draw(2, 11)

    def gradients():
        model.zero_grad()
        model(x, labels=x).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    model.base_model.model.activation_checkpointing_enable({"use_reentrant": reentrant})
    got = gradients()
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(got[name], gradient, name)


def test_prompt_tuning():
    """PEFT gives embeddings in the place of tokens, and a mask that covers them."""
    base, (tokens, mask) = wrapper_of("bmojo"), padded(prompts([9, 4]), "left")
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, num_attention_heads=1)
    model = peft.get_peft_model(base, prompt).eval()
    prefix = model.get_prompt(batch_size=2)
    embeddings = torch.cat([prefix, base.get_input_embeddings()(tokens)], 1)
    longer = torch.cat([torch.ones(2, 3, dtype=mask.dtype), mask], 1)
    expected = base(inputs_embeds=embeddings, attention_mask=longer).logits
    got = model(input_ids=tokens, attention_mask=mask).logits
    assert_close(got[longer.bool()], expected[longer.bool()], "logits")
    settings = dict(max_new_tokens=5, do_sample=False, pad_token_id=0)
    new = model.generate(input_ids=tokens, attention_mask=mask, **settings)[:, 9:]
    assert torch.equal(new, base.generate(inputs_embeds=embeddings, attention_mask=longer, **settings))


def run(model, path, data, **settings):
    arguments = transformers.TrainingArguments(
        output_dir=str(path),
        **dict(
            max_steps=8,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            logging_steps=1,
            save_steps=4,
            report_to=[],
            seed=0,
            use_cpu=True,
            disable_tqdm=True,
        )
        | settings,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent / "model")
    collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data, data_collator=collate)


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer_and_a_resumed_run(tmp_path, checkpointing):
    tokenizer = Tokenizer.for_bytes()
    data = [{"input_ids": tokenizer.encode(line).tolist()} for line in LINES]
    settings = dict(gradient_checkpointing=checkpointing)
    whole = run(small(tmp_path / "model"), tmp_path / "whole", data, **settings)
    whole.train()
    assert len(losses(whole)) == 8 and losses(whole)[-1] < 0.8 * losses(whole)[0]
    resumed = run(SolomonicForCausalLM.from_pretrained(tmp_path / "model"), tmp_path / "resumed", data, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert losses(resumed)[-4:] == pytest.approx(losses(whole)[-4:], rel=1e-5)
    for (name, got), expected in zip(resumed.model.named_parameters(), whole.model.parameters()):
        assert_close(got, expected, name)
    saved = json.loads((tmp_path / "whole" / "checkpoint-8" / "config.json").read_text())
    assert saved["model_type"] == "solomonic"
    x = draw(1, 9)
    from solomonic.checkpoints.formats import read_folder

    config, tensors = read_folder(tmp_path / "whole" / "checkpoint-8")
    ours = LanguageModel(config)
    ours.load_state_dict(tensors)
    assert_close(ours(x)[0], whole.model.eval()(x).logits, "logits of the last checkpoint")
    assert whole.evaluate()["eval_loss"] < losses(whole)[0]


def test_the_loss_of_accumulated_batches_is_that_of_one(tmp_path):
    """`num_items_in_batch`: how a batch is cut into steps does not change the gradient."""
    data = [{"input_ids": Tokenizer.for_bytes().encode(line).tolist()} for line in LINES]
    seen = []
    for batch, steps in ((8, 1), (2, 4)):
        settings = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=steps, max_steps=3)
        trainer = run(small(tmp_path / "model"), tmp_path / str(batch), data, save_strategy="no", **settings)
        trainer.train()
        seen.append(losses(trainer))
    assert seen[0] == pytest.approx(seen[1], rel=1e-4)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("packing", [False, True])
def test_trl(tmp_path, packing, lora):
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    model = small(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "run"),
        max_length=48,
        packing=packing,
        max_steps=8,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    trainer = trl.SFTTrainer(
        model,
        arguments,
        train_dataset=datasets.Dataset.from_dict({"text": LINES}),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert ("position_ids" in batch) == packing
    trainer.model.eval()
    with torch.no_grad():
        fused = trainer.compute_loss(trainer.model, dict(batch))
        ours = trainer.model(**{key: value for key, value in batch.items() if key != "use_cache"}).loss
    assert_close(fused, ours, "the loss of the fused head")
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]


@pytest.mark.parametrize("kind", ["SFT", "DPO", "GRPO", "Reward"])
def test_trl_from_a_folder(tmp_path, kind):
    """A trainer that is given the folder's name loads the model and its tokenizer, and changes the weights."""
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    before = {name: parameter.detach().clone() for name, parameter in small(tmp_path / "model").named_parameters()}
    pairs = {"prompt": ["abc"] * 4, "chosen": [" yes"] * 4, "rejected": [" no, no"] * 4}
    data = {"SFT": {"text": LINES}, "GRPO": {"prompt": ["abc"] * 4}}.get(kind, pairs)
    settings = dict(
        output_dir=str(tmp_path / "run"),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    other = {}
    if kind == "GRPO":
        settings |= dict(num_generations=2, max_completion_length=6)
        other = dict(
            reward_funcs=lambda completions, **_: [float(text.count("a") + i) for i, text in enumerate(completions)]
        )
    trainer = getattr(trl, f"{kind}Trainer")(
        model=str(tmp_path / "model"),
        args=getattr(trl, f"{kind}Config")(**settings),
        train_dataset=datasets.Dataset.from_dict(data),
        **other,
    )
    trainer.train()
    assert trainer.state.global_step == 2
    after = dict(trainer.model.named_parameters())
    changed = [name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])]
    assert len(changed) > len(before) // 2


def test_packed_rows_of_trl_are_documents_alone(tmp_path):
    """The loss of a packed batch is that of its documents, each read by itself."""
    pytest.importorskip("trl")
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model, rows = wrapper_of("bmojo"), prompts([6, 9, 4])
    packed = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = packed([{"input_ids": torch.cat(rows).tolist(), "seq_lengths": [6, 9, 4]}])
    alone = sum(model(row[None], labels=row[None]).loss * (len(row) - 1) for row in rows)
    expected = alone / sum(len(row) - 1 for row in rows)
    for left_out in ((), ("seq_idx",), ("position_ids",)):
        kept = {key: value for key, value in batch.items() if key not in left_out}
        assert_close(model(**kept).loss, expected, f"loss without {left_out}")
