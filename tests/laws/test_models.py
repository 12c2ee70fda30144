"""The laws of `solomonic.testing` on every mixer and every preset."""

import pytest

from solomonic import PRESETS
from solomonic.testing import ModelLaws

from .cases import MODEL_CASES, model_of


class TestLaws(ModelLaws):
    @pytest.fixture(autouse=True, params=MODEL_CASES)
    def case(self, request):
        self.name = request.param

    def model(self):
        return model_of(self.name)

    def test_unbounded_where_it_is_said(self):
        if self.name in PRESETS:
            assert self.is_bounded == (self.name not in ("transformer", "jamba"))
