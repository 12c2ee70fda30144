"""Memory attention by its definition: every query against every key there is, and a mask that says what it sees."""

import torch
from torch import Tensor

from ..rotary import Rotation, rotate
from ..selection import select_by_query
from .call import AttentionCall, Group


def rotated(queries: Group, keys: Group, rotation: Rotation | None) -> tuple[Group, Group]:
    """Queries and keys of the window and of the fading memory rotated by their coordinates; the eidetic ones never are."""
    if rotation is None:
        return queries, keys
    (q, q_far, q_eidetic), (k, k_far, k_eidetic) = queries, keys
    T, longest = q.shape[1], max(x.shape[1] for x in (q, k, q_far, k_far) if x is not None)
    cos, sin = rotation.table(torch.arange(T - longest, T, device=q.device)[None], q.shape[3])

    def last_rows(x: Tensor) -> Tensor:
        return rotate(x, *(y[:, longest - x.shape[1] :] for y in (cos, sin)))

    near = last_rows(q)
    far = near if q_far is q else None if q_far is None else last_rows(q_far)
    return (near, far, q_eidetic), (last_rows(k), None if k_far is None else last_rows(k_far), k_eidetic)


def _extra(call: AttentionCall, T: int) -> Tensor | None:
    """(B, T or 1, S) float32: what is added to the logits of the candidates."""
    if call.lost is None:
        return None if call.bias is None else call.bias[:, None]
    passed = call.lost[:, None] - call.lost[:, -T:, None]
    return (-passed if call.bias is None else call.bias[:, None] - passed).float()


def attend(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """See `AttentionCall`."""
    queries, keys, values = call.queries, call.keys, call.values
    score, coordinate, stored, rotation = call.score, call.coordinate, call.stored, call.rotation
    sequences, window, span, block, capacity = call.sequences, call.window, call.span, call.block, call.capacity
    queries, keys = rotated(queries, keys, rotation)
    (q, q_fading, q_eidetic), (k, k_fading, k_eidetic), (v, v_fading, v_eidetic) = queries, keys, values
    B, T, H, D = q.shape
    t = torch.arange(T, device=q.device)[:, None]
    logits, values_seen = [], []

    def group(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, extra: Tensor | None = None) -> None:
        k, v = (x.repeat_interleave(H // x.shape[2], 2) for x in (k, v))
        logit = torch.einsum("bthd,bshd->bhts", q, k).float() * D**-0.5
        if extra is not None:
            logit = logit + extra[:, None]
        logits.append(logit.masked_fill(~visible.expand(B, -1, -1)[:, None], -torch.inf))
        values_seen.append(v)

    def lag(k: Tensor) -> Tensor:
        return t - torch.arange(T - k.shape[1], T, device=q.device)

    if window:
        group(q, k, v, (lag(k) >= 0) & (lag(k) < window) & (lag(k) <= sequences.position[..., None]))
    if q_fading is not None and k_fading is not None and v_fading is not None:
        far = lag(k_fading)
        group(
            q_fading,
            k_fading,
            v_fading,
            (far >= window) & (far < window + span) & (far <= sequences.position[..., None]),
        )
    carried = None
    if q_eidetic is not None and k_eidetic is not None and v_eidetic is not None:
        assert score is not None and coordinate is not None
        candidates, carried = select_by_query(score, coordinate, sequences, block, capacity)
        member = torch.zeros(B, T, score.shape[1] + 1, dtype=torch.bool, device=q.device)
        member = member.scatter(2, candidates % (score.shape[1] + 1), True)[..., :-1]
        old = t - coordinate[:, None] >= window
        group(q_eidetic, k_eidetic, v_eidetic, member & old, _extra(call, T))
    if stored is not None:
        key, value = (x.repeat_interleave(H // x.shape[3], 3) for x in (stored.key, stored.value))
        logit = torch.einsum("bthd,btehd->bhte", stored.query, key).float() * D**-0.5 + stored.bias[:, None]
        logits.append(logit.masked_fill(~stored.visible[:, None], -torch.inf))
    weight = torch.cat(logits, -1).softmax(-1).to(v.dtype)
    if stored is None:
        return torch.einsum("bhts,bshd->bthd", weight, torch.cat(values_seen, 1)), carried
    weight, of_store = weight.split([weight.shape[-1] - key.shape[2], key.shape[2]], -1)
    if stored.sharpness != 1:
        divided = (stored.sharpness * logits[-1].masked_fill(~stored.visible[:, None], -1e30)).softmax(-1).to(v.dtype)
        of_store = of_store.sum(-1, keepdim=True) * divided
    if stored.watch:
        stored.watch(of_store.transpose(1, 2))
    y = torch.einsum("bhts,bshd->bthd", weight, torch.cat(values_seen, 1))
    return y + torch.einsum("bhte,btehd->bthd", of_store, value), carried
