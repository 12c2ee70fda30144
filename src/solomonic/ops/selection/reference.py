"""The eidetic memory by its definition: for each query, sort everything it may keep and take the first."""

import torch
from torch import Tensor

from ..sequence import Sequences


def select(score: Tensor, coordinate: Tensor, sequences: Sequences, block: int, capacity: int) -> tuple[Tensor, Tensor]:
    """score (B, S), -inf at an empty slot; coordinate (B, S) int64.

    Returns what each query sees (B, T, capacity) and what is carried on (B, capacity): candidate numbers, -1 = none.
    """
    B, S = score.shape
    T = sequences.position.shape[1]
    candidates = torch.full((B, T, capacity), -1)
    carried = torch.full((B, capacity), -1)
    for b in range(B):
        held = set(coordinate[b, :capacity][score[b, :capacity] > -torch.inf].tolist())

        def best(start: int, boundary: int) -> Tensor:
            able = [
                i
                for i in range(S)
                if start <= coordinate[b, i] < boundary
                and score[b, i] > -torch.inf
                and (i < capacity or coordinate[b, i].item() not in held)
            ]
            able.sort(key=lambda i: (-score[b, i].item(), coordinate[b, i].item()))
            return torch.tensor(able[:capacity], dtype=torch.long)

        length = T if sequences.length is None else int(sequences.length[b])
        position = sequences.position.expand(B, T)[b].tolist()
        for t in range(length):
            memory = best(t - position[t], t - position[t] % block)
            candidates[b, t, : len(memory)] = memory
        if length == 0:
            memory = torch.tensor([i for i in range(capacity) if score[b, i] > -torch.inf], dtype=torch.long)
        carried[b, : len(memory)] = memory
    return candidates.to(score.device), carried.to(score.device)
