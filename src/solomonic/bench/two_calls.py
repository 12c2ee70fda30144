"""B'MOJO-F as it was published: two attention calls, merged afterwards (arXiv 2407.06324; the peer of our one softmax).

Queries are projected and rotated for the window and again for the fading memory, each call gives its output and the
logarithm of its normaliser, and the outputs are averaged by these. The weights are a `BMojo` layer's without eidetic
memory, whose outputs it equals.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..mixers.attention import Projections
from ..mixers.bmojo import BMojo
from ..ops.rotary import rotary
from ..ops.sequence import Sequences


class TwoCalls(nn.Module):
    def __init__(self, layer: BMojo):
        super().__init__()
        config = layer.config
        if config.capacity or config.fading is None or config.window != config.fading_span:
            raise ValueError("two calls: expected a layer with window and fading memory of one span, and no capacity")
        self.layer, self.config = layer, config

    def forward(self, x: Tensor, state: None, sequences: Sequences) -> tuple[Tensor, None]:
        layer = self.layer
        assert layer.fading is not None and layer.project is not None
        f, _ = layer.fading(x, None, sequences)
        second = layer.project_fading or layer.project
        near, mass = self._attend(layer.project, x, x, sequences, 0)
        far, other = self._attend(second, x, f, sequences, self.config.window)
        share = torch.sigmoid(mass - other)[..., None]  # of the window; an empty call has mass -inf
        y = share.to(near.dtype) * near + (1 - share).to(far.dtype) * far
        return layer.out(y.flatten(2)), None

    def _attend(
        self, project: Projections, queried: Tensor, held: Tensor, sequences: Sequences, nearest: int
    ) -> tuple[Tensor, Tensor]:
        """Attention to nearest <= lag < nearest + window -> (B, T, H, D) and log normaliser (B, T, H)."""
        w, base = self.config.window, self.config.rotary_base
        B, T, _ = queried.shape
        q = rotary(project.query(queried), sequences.position, base)
        k, v = project.key_value(held)
        k = rotary(k, sequences.position, base)
        H, G, D = q.shape[2], k.shape[2], q.shape[3]
        N = -(-T // w)
        q = pad(q, (0, 0, 0, 0, 0, N * w - T)).view(B, N, w, G, H // G, D).permute(0, 1, 3, 4, 2, 5)
        q = q.reshape(B, N, G, -1, D)

        def around(rows: Tensor) -> Tensor:
            """Rows with lags nearest - w < lag < nearest + 2 w of a block's first query: b n g s d, 2 w of them."""
            rows = pad(rows, (0, 0, 0, 0, w + nearest, N * w - T))
            return rows.unfold(1, 2 * w, w)[:, :N].transpose(-1, -2)

        row = torch.arange(w, device=q.device)
        lag = row[:, None] + w + nearest - torch.arange(2 * w, device=q.device)
        start = torch.arange(N, device=q.device)[:, None, None] * w
        visible = (lag >= nearest) & (lag < nearest + w) & (lag <= start + row[:, None])
        logit = (q * D**-0.5 @ around(k).mT).unflatten(3, (H // G, w)).float()
        logit = logit.masked_fill(~visible[:, None, None], torch.finfo(logit.dtype).min)
        mass = logit.logsumexp(-1)
        weight = (logit - mass[..., None]).exp().to(v.dtype).flatten(3, 4)
        y = (weight @ around(v)).view(B, N, G, H // G, w, D).permute(0, 1, 4, 2, 3, 5).reshape(B, N * w, H, D)
        mass = mass.masked_fill(~visible.any(-1)[:, None, None], -torch.inf)
        return y[:, :T], mass.permute(0, 1, 4, 2, 3).reshape(B, N * w, H)[:, :T]


__all__ = ["TwoCalls"]
