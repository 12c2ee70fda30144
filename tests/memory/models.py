"""A model that looks things up: its weights are written down, not learnt."""

import torch

from solomonic import LanguageModel, ModelConfig
from solomonic.mixers.bmojo import BMojoConfig

VOCABULARY, PART = 257, 64


def looking() -> LanguageModel:
    """What followed a stored token like this one is foretold, and nothing else.

    A token is a random vector e, three times as wide: [e, e, 0]. The convolution makes [e, e of the token before, 0] of
    it; a query is the first part, a key the second, a value the first, which is written to the third, as the head reads.
    """
    layer = BMojoConfig(window=4, capacity=4, n_heads=1, conv=2)
    model = LanguageModel(ModelConfig(vocab_size=VOCABULARY, d_model=3 * PART, layers=[layer], d_ff=0))
    vectors = torch.randn(VOCABULARY, PART, generator=torch.Generator().manual_seed(0))
    mixer, first, second, third = model.blocks[0].mixer, *(slice(i * PART, (i + 1) * PART) for i in range(3))
    with torch.no_grad():
        for parameter in (model.embedding.weight, model.head.weight, mixer.conv.weight, mixer.out.weight):
            parameter.zero_()
        model.embedding.weight[:, first] = model.embedding.weight[:, second] = vectors
        model.head.weight[:, third] = vectors
        mixer.conv.weight[second, 0] = torch.tensor([1.0, -1.0])
        for name, part in (("q", first), ("k", second), ("v", first)):
            weight = getattr(mixer.project, name).weight
            weight.zero_()
            weight[:PART, part] = torch.eye(PART)
        mixer.out.weight[third, :PART] = torch.eye(PART)
    return model.eval()
