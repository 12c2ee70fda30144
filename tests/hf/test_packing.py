"""Packed documents, in every form that transformers' collators give them: what each gives alone, whole and in calls."""

import pytest
import torch

from ..laws.cases import assert_close
from .models import prompts, wrapper_of

transformers = pytest.importorskip("transformers", minversion="5.23")

ROWS = prompts([6, 1, 9, 3])
FORMS = {
    "positions": {},
    "positions from 1": {"position_ids_start": 1},
    "positions from 7": {"position_ids_start": 7},
    "ends": {"return_position_ids": False, "return_flash_attn_kwargs": True},
    "numbers": {"return_position_ids": False, "return_seq_idx": True},
    "all": {"position_ids_start": 2, "return_flash_attn_kwargs": True, "return_seq_idx": True},
}


def packed(**settings):
    collate = transformers.DataCollatorWithFlattening(return_tensors="pt", **settings)
    batch = collate([{"input_ids": row.tolist()} for row in ROWS])
    batch.pop("labels")
    return batch


def alone(model):
    return torch.cat([model(row[None]).logits[0] for row in ROWS])


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["bmojo", "jamba"])
def test_documents_do_not_see_each_other(name, form):
    model, batch = wrapper_of(name), packed(**FORMS[form])
    assert_close(model(**batch).logits[0], alone(model), form)
    if form == "ends":
        return
    batch = {key: x for key, x in batch.items() if isinstance(x, torch.Tensor) and x.dim() == 2}
    cache, logits = None, []
    for begin, end in ((0, 6), (6, 8), (8, 12), (12, 17), (17, 19)):  # at a border, inside, before the last token
        part = {key: x[:, begin:end] for key, x in batch.items()}
        out = model(**part, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits[0])
    assert_close(torch.cat(logits), alone(model), f"{form}, in calls")


@torch.no_grad()
def test_ends_count_through_all_rows():
    model = wrapper_of("bmojo")
    tokens = torch.cat(ROWS).view(1, 19)[:, :18].view(2, 9)
    ends = torch.tensor([0, 6, 9, 14, 18], dtype=torch.int32)
    got = model(tokens, cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=6, max_length_k=torch.tensor(6)).logits
    expected = torch.cat([model(part[None]).logits[0] for part in tokens.flatten().split([6, 3, 5, 4])])
    assert_close(got.flatten(0, 1), expected, "logits")


@torch.no_grad()
@pytest.mark.parametrize("filled", [0, 1])
def test_positions_at_padding_mean_nothing(filled):
    """Padding before, within and after a document, and positions that count it, begin none."""
    model, row = wrapper_of("bmojo"), ROWS[2]
    tokens = torch.cat([torch.zeros(2, dtype=torch.int64), row[:5], torch.zeros(3, dtype=torch.int64), row[5:]])[None]
    mask = torch.tensor([[0] * 2 + [1] * 5 + [0] * 3 + [1] * 4])
    expected = model(row[None]).logits[0]
    counted = (mask.cumsum(1) - 1).masked_fill(mask == 0, filled)
    for positions in (counted, torch.arange(14)[None], counted + 5):
        got = model(tokens, attention_mask=mask, position_ids=positions).logits[0, mask[0].bool()]
        assert_close(got, expected, f"{positions.tolist()}")
    cache = model(tokens[:, :10], attention_mask=mask[:, :10], position_ids=counted[:, :10], use_cache=True)
    after = torch.arange(10, 14)[None]  # as `generate` counts columns where it is told of no padding
    got = model(tokens[:, 10:], position_ids=after, past_key_values=cache.past_key_values).logits[0]
    assert_close(got, expected[5:], "columns")


def test_a_jump_forward_begins_a_document_as_in_transformers():
    model, rows = wrapper_of("bmojo"), ROWS[::2]
    positions = torch.cat([torch.arange(4, 10), torch.arange(20, 29)])[None]
    with torch.no_grad():
        got = model(torch.cat(rows)[None], position_ids=positions).logits[0]
        assert_close(got, torch.cat([model(row[None]).logits[0] for row in rows]), "logits")


def test_rows_of_a_cache_keep_where_their_documents_are():
    model = wrapper_of("bmojo")
    tokens = torch.stack([ROWS[0], ROWS[0].flip(0)])
    cache = model(
        tokens, position_ids=torch.stack([torch.arange(6), torch.arange(3, 9)]), use_cache=True
    ).past_key_values
    cache.reorder_cache(torch.tensor([1, 0]))
    more = torch.stack([ROWS[3], ROWS[3]])
    got = model(more, position_ids=torch.tensor([[9, 10, 11], [0, 1, 2]]), past_key_values=cache).logits
    assert_close(got[0], model(torch.cat([tokens[1], ROWS[3]])[None]).logits[0, 6:], "goes on")
    assert_close(got[1], model(ROWS[3][None]).logits[0], "begins")


@pytest.mark.parametrize(
    "says, given",
    [
        ("max_length_q: expected cu_seq_lens_q beside it", {"max_length_q": 4}),
        ("cu_seq_lens_q: expected numbers from 0 to 12", {"cu_seq_lens_q": [0, 5, 11]}),
        ("cu_seq_lens_q: expected numbers from 0 to 12", {"cu_seq_lens_q": [0, 8, 5, 12]}),
        (r"cu_seq_lens_q: expected \(documents \+ 1,\)", {"cu_seq_lens_q": [[0, 12]]}),
        ("cu_seq_lens_k: expected cu_seq_lens_q", {"cu_seq_lens_q": [0, 5, 12], "cu_seq_lens_k": [0, 6, 12]}),
        ("max_length_k: expected the longest document, 7", {"cu_seq_lens_k": [0, 5, 12], "max_length_k": 6}),
        (r"position_ids: expected \(2, 6\)", {"position_ids": [[0, 1, 2]]}),
        ("seq_idx: expected numbers of documents that never decrease", {"seq_idx": [[0, 1, 1, 1, 0, 2]]}),
        ("attention_mask: expected 0 at padding and 1 elsewhere", {"attention_mask": [[1, 1, 2, 2, 2, 0]] * 2}),
        ("attention_mask: expected 0 at padding and 1 elsewhere", {"attention_mask": [[0.0] * 5 + [-1e9]] * 2}),
    ],
)
def test_what_cannot_be_followed_is_refused(says, given):
    model, tokens = wrapper_of("mamba2"), ROWS[0].expand(2, 6)
    given = {key: torch.tensor(x) if isinstance(x, list) else x for key, x in given.items()}
    with pytest.raises(ValueError, match=says):
        model(tokens, **given)
    if "cu_seq_lens_q" in given:
        with pytest.raises(ValueError, match="cu_seq_lens_q: expected a call without a cache"):
            model(tokens, past_key_values=model(tokens, use_cache=True).past_key_values, **given)
