"""A sliding window with PyTorch's FlexAttention: the weights are an `Attention` layer's, whose outputs it equals."""

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ..mixers.attention import Attention
from ..ops.rotary import rotary
from ..ops.sequence import Sequences
from .measure import can_compile


def refusal(work: str, device: torch.device) -> str | None:
    """Why it cannot do this work there, or None where it can."""
    if device.type != "cpu":
        return None
    if work == "train":
        return "FlexAttention has no backward pass on a CPU"
    if not can_compile(device):
        return "FlexAttention needs a C++ compiler on a CPU; without it nothing is fused"
    return None


class FlexWindow(nn.Module):
    def __init__(self, layer: Attention, compiled: bool = True):
        super().__init__()
        assert layer.config.window is not None
        self.layer = layer
        self.window: int = layer.config.window
        self.attend = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
        self.masks: dict[int, BlockMask] = {}  # by length

    def forward(self, x: Tensor, state: None, sequences: Sequences) -> tuple[Tensor, None]:
        config, project = self.layer.config, self.layer.project
        q, (k, v) = project.query(x), project.key_value(x)
        q, k = (rotary(z, sequences.position, config.rotary_base, config.rotary_scaling) for z in (q, k))
        T = x.shape[1]
        if T not in self.masks:
            window = self.window

            def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return (query >= key) & (query - key < window)

            self.masks[T] = create_block_mask(visible, None, None, T, T, device=str(x.device))
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        y = self.attend(q, k, v, block_mask=self.masks[T], enable_gqa=q.shape[1] != k.shape[1])
        return self.layer.out(y.transpose(1, 2).flatten(2)), None


__all__ = ["FlexWindow", "refusal"]
