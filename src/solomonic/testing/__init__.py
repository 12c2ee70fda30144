"""The laws of mixers and of tasks as tests, those of the library's own: one line, or a class, holds yours to them.

    from solomonic.testing import MixerLaws, check_mixer

    def test_mine():
        check_mixer("mine", d_model=32)  # all laws in one test

    class TestMine(MixerLaws):  # each law is a test
        mixer = "mine"

A law that is broken is an AssertionError that says where. Nothing here needs pytest, whose tests these are all the same.
"""

from .mixers import MixerLaws, ModelLaws, check_mixer
from .tasks import TaskLaws, check_task

__all__ = ["MixerLaws", "ModelLaws", "TaskLaws", "check_mixer", "check_task"]
