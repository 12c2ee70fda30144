"""Dynamic textures: a clip as a small stochastic system.

`model` learns one and makes frames, `grain` is what its states leave unexplained, `clip` reads frames and `film` writes
them.
"""

from .clip import Clip, read
from .film import CODECS, MOST, picture, write, write_png
from .grain import Grain
from .model import Texture, at_speed, learn, states, synthesise

__all__ = ["CODECS", "MOST", "Clip", "Grain", "Texture", "at_speed", "learn", "picture", "read", "states"]
__all__ += ["synthesise", "write", "write_png"]
