"""A model, and a client of it, for each file of tests."""

from importlib.util import find_spec

import pytest

if not (find_spec("starlette") and find_spec("uvicorn")):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def model():
    from .helpers import a_model

    return a_model()


@pytest.fixture(scope="module")
def client(model):
    from .helpers import serving

    with serving(model) as client:
        yield client
