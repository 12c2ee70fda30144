"""Where documents begin in packed rows: the arguments of transformers' collators become numbers of documents.

B rows, T columns. Three forms, any of which begins a document: positions that do not go on by one (`position_ids`),
numbers of the documents (`seq_idx`), and the ends of the documents in all rows, one after the other (`cu_seq_lens_q`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..mixers import State


class Ends(NamedTuple):
    """FlashAttention's arguments: the ends of the documents, twice, and the length of the longest document, twice."""

    cu_seq_lens_q: Tensor | None = None
    cu_seq_lens_k: Tensor | None = None
    max_length_q: Tensor | int | None = None
    max_length_k: Tensor | int | None = None


KEYS = Ends._fields
NONE = Ends()


def segments(
    columns: torch.Size,
    real: Tensor | None,
    state: State | None,
    last: dict[str, Tensor],
    position_ids: Tensor | None = None,
    seq_idx: Tensor | None = None,
    ends: Ends = NONE,
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """(B, T) numbers of documents that go on from `state`'s, None where none begins; and `last` for the next call.

    real (B, T) bool, None where nothing is padding. last: (B,) for each argument of the call before, at its last real
    token. ValueError for another shape than (B, T), and for ends that do not fit it.
    """
    begins, after = None, {}
    if position_ids is not None:
        p = _beside("position_ids", position_ids, columns)
        before, inside = _before(p, real)
        known = last.get("position_ids", p.new_full(p.shape[:1], -1))
        left = torch.cat([last.get("column", known)[:, None], p[:, :-1]], 1)  # padding or not
        follows = p == left + 1
        begins = (p == 0) | (torch.where(inside, p != before + 1, p <= known[:, None]) & ~follows)
        after["position_ids"], after["column"] = _final(p, real, known), p[:, -1].clone()
    if seq_idx is not None:
        s = _beside("seq_idx", seq_idx, columns)
        before, inside = _before(s, real)
        known = last.get("seq_idx", s.new_zeros(s.shape[0]) if state is None else state["segment"])
        falls = (s < before) & inside
        if not torch.compiler.is_compiling() and (falls if real is None else falls & real).any():
            raise ValueError("seq_idx: expected numbers of documents that never decrease along a row")
        differs = s != torch.where(inside, before, known[:, None])
        begins = differs if begins is None else begins | differs
        after["seq_idx"] = _final(s, real, known)
    if any(end is not None for end in ends):
        n = _numbered(columns, state, ends)
        differs = n != _before(n, real)[0]
        begins = differs if begins is None else begins | differs
    if begins is None:
        return None, after
    if state is None:
        begins = begins & _before(begins, real)[1]
    number = (begins if real is None else begins & real).cumsum(1)
    if not torch.compiler.is_compiling() and not number.any():
        return None, after
    return number if state is None else number + state["segment"][:, None], after


def _numbered(columns: torch.Size, state: State | None, ends: Ends) -> Tensor:
    """(B, T) numbers of documents by their ends in all rows, one after the other: 0, then the end of each."""
    B, T = columns
    starts = [cuts.long() for cuts in (ends.cu_seq_lens_q, ends.cu_seq_lens_k) if cuts is not None]
    if not starts:
        raise ValueError(
            f"{KEYS[2]}: expected {KEYS[0]} beside it, the ends of the documents; leave it out, or pass seq_idx"
        )
    if state is not None:
        raise ValueError(
            f"{KEYS[0]}: expected a call without a cache; pass seq_idx, which says where a document goes on"
        )
    cuts = starts[0]
    if cuts.dim() != 1 or len(cuts) < 2:
        raise ValueError(f"{KEYS[0]}: expected (documents + 1,) whole numbers, got {tuple(cuts.shape)}")
    if not torch.compiler.is_compiling():
        sizes = cuts.diff()
        if cuts[0] != 0 or cuts[-1] != B * T or (sizes < 0).any():
            raise ValueError(f"{KEYS[0]}: expected numbers from 0 to {B * T}, all columns, got {cuts[0]} to {cuts[-1]}")
        if not all(torch.equal(cuts, other) for other in starts[1:]):
            raise ValueError(f"{KEYS[1]}: expected {KEYS[0]}, as documents are read whole, got others")
        longest = int(sizes.max())
        for key, length in zip(KEYS[2:], (ends.max_length_q, ends.max_length_k)):
            if length is not None and int(length) < longest:
                raise ValueError(f"{key}: expected the longest document, {longest}, got {int(length)}")
    return torch.searchsorted(cuts[1:], torch.arange(B * T, device=cuts.device), right=True).view(B, T)


def _beside(name: str, ids: Tensor, columns: torch.Size) -> Tensor:
    if tuple(ids.shape) not in {tuple(columns), (1, columns[1]), (columns[1],)}:
        raise ValueError(f"{name}: expected {tuple(columns)}, beside the tokens, got {tuple(ids.shape)}")
    return ids.long().expand(columns)


def _columns(x: Tensor, real: Tensor) -> Tensor:
    """(B, T): the column of the last real token up to here, -1 where there is none."""
    at = torch.arange(x.shape[1], device=x.device).expand(x.shape)
    return torch.where(real, at, -1).cummax(1).values


def _before(x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """x (B, T) of the real token before in this call, anything where there is none; and whether there is one."""
    if real is None:
        return x.roll(1, 1), torch.arange(x.shape[1], device=x.device)[None] > 0
    at = torch.nn.functional.pad(_columns(x, real)[:, :-1], (1, 0), value=-1)
    return x.gather(1, at.clamp_min(0)), at >= 0


def _final(x: Tensor, real: Tensor | None, known: Tensor) -> Tensor:
    """x of each row's last real token, `known` where it has none."""
    if real is None:
        return x[:, -1].clone()
    at = _columns(x, real)[:, -1:]
    return torch.where(at[:, 0] >= 0, x.gather(1, at.clamp_min(0))[:, 0], known)


__all__ = ["KEYS", "Ends", "segments"]
