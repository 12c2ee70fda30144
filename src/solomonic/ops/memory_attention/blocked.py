"""Memory attention block by block: each run of `block` queries against [eidetic | fading | window] keys.

Window and fading keys of a block are a strided view of the rows around it, the eidetic ones one gather; three batched
products, one softmax, three batched products. All shapes are static; cost is linear in T.

Letters: b batch, n query block, h key head, r query head of it, t query row, s key.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..place import Place
from ..selection import select


def attend(queries, keys, values, score, coordinate, bias, place: Place, window, span, block, capacity, stored=None):
    """See `memory_attention.attend`."""
    (q, q_fading, q_eidetic), (k, k_fading, k_eidetic), (v, v_fading, v_eidetic) = queries, keys, values
    B, T, H, D = q.shape
    G = v.shape[2]
    N, rows = -(-T // block), min(block, T)
    fill = N * rows - T
    row = torch.arange(N * rows, device=q.device).view(N, rows, 1)
    position = pad(place.position, (0, fill)).view(-1, N, rows, 1)

    def blocks(x: Tensor) -> Tensor:
        """(B, T, H, D) queries -> b n h (r t) d."""
        x = pad(x, (0, 0, 0, 0, 0, fill)).view(B, N, rows, G, H // G, D)
        return x.permute(0, 1, 3, 4, 2, 5).reshape(B, N, G, -1, D)

    def around(x: Tensor, count: int) -> Tensor:
        """(B, R + T, G, D) rows -> b n h s d: the `count` rows from n `rows` on."""
        if N == 1:
            return x[:, None, :count].transpose(2, 3)
        x = pad(x, (0, 0, 0, 0, 0, max(0, (N - 1) * rows + count - x.shape[1])))
        return x.unfold(1, count, rows)[:, :N].transpose(-1, -2)

    logits, masks, shown = [], [], []

    def group(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, extra: Tensor | None = None) -> None:
        logit = (blocks(q * D**-0.5) @ k.mT).unflatten(3, (H // G, rows)).float()  # b n h r t s
        logits.append(logit if extra is None else logit + extra[:, :, None, None, None])
        masks.append(visible)
        shown.append(v)

    def near(q: Tensor, k: Tensor, v: Tensor, nearest: int, farthest: int) -> None:
        """Keys with nearest <= lag < farthest; rows x[:, 0] have coordinate -farthest."""
        count = farthest - nearest + rows
        lag = row + farthest - row[:, :1] - torch.arange(count, device=q.device)
        visible = (lag >= nearest) & (lag < farthest) & (lag <= position)
        group(q, around(k, count), around(v, count), visible)

    if window:
        near(q, k, v, 0, window)
    if k_fading is not None:
        near(q_fading, k_fading, v_fading, window, window + span)
    carried = None
    if capacity:
        sets = select(score, coordinate, place, block, capacity)
        carried = sets.carried
        if place.aligned:
            index, turn = sets.index[:, 1:], True
        else:
            turn = row >= sets.event[..., None, None]  # b n t 1: whether the later set is in force
            if T == 1:
                index, turn = torch.where(turn[..., 0], sets.index[:, 1:], sets.index[:, :-1]), True
            else:
                index = torch.cat([sets.index[:, :-1], sets.index[:, 1:]], -1)
                turn = turn == (torch.arange(2 * capacity, device=q.device) >= capacity)
        flat = index.clamp_min(0).flatten(1)

        def pick(x: Tensor) -> Tensor:
            at = flat.view(*flat.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
            return x.gather(1, at).unflatten(1, index.shape[1:])

        lag = row - pick(coordinate)[:, :, None]
        visible = (index >= 0)[:, :, None] & turn & (lag >= window) & (lag <= position)
        k, v = pick(k_eidetic).transpose(2, 3), pick(v_eidetic).transpose(2, 3)
        group(q_eidetic, k, v, visible, None if bias is None else pick(bias))
    if stored is not None:
        k, v = (x.transpose(1, 2)[:, None].to(q.dtype) for x in (stored.key, stored.value))
        shown_to = pad(stored.visible, (0, 0, 0, fill)).view(B, N, rows, -1)
        group(stored.query, k, v, shown_to, stored.bias[:, None])
    visible = torch.cat([m.expand(max(len(m) for m in masks), -1, -1, -1) for m in masks], -1)
    weight = torch.cat(logits, -1).masked_fill(~visible[:, :, None, None], -torch.inf).softmax(-1)
    if stored is not None and stored.watch:
        given = weight[..., -stored.key.shape[1] :].permute(0, 1, 4, 2, 3, 5)  # b n t h r s
        stored.watch(given.reshape(B, N * rows, H, -1)[:, :T])
    weight = weight.to(v.dtype).flatten(3, 4).split([x.shape[-1] for x in logits], -1)
    y = sum(w @ x for w, x in zip(weight, shown))  # b n h (r t) d
    y = y.view(B, N, G, H // G, rows, D).permute(0, 1, 4, 2, 3, 5).reshape(B, N * rows, H, D)
    return y[:, :T], carried
