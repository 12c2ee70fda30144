import pytest

from .cases import ENGINES, uri_of


@pytest.fixture(params=ENGINES)
def uri(request, tmp_path):
    return uri_of(request.param, tmp_path / "store")
