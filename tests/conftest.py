"""Uninitialised memory is filled with NaN, so that a result which depends on it fails."""

import pytest
import torch

torch.set_num_threads(1)  # tests run side by side


@pytest.fixture(autouse=True)
def poisoned_memory():
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
