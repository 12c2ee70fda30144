"""Uninitialised memory is filled with NaN, so that a result which depends on it fails.

Where `SOLOMONIC_ALL_PACKAGES` is set, as in continuous integration, a test that is skipped because a package is missing fails.
"""

import os
import re
from contextlib import contextmanager

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# before numpy is imported: tests run side by side, and so do the processes that they begin
os.environ |= dict.fromkeys(POOLS, "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


MISSING = re.compile(r"could not import|No module named|not installed|has __version__")


def missing_fails(report):
    """The report, failed where it says that a package is missing and none may be."""
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if os.environ.get("SOLOMONIC_ALL_PACKAGES") and MISSING.search(reason):
        report.outcome, report.longrepr = "failed", f"every package is expected here, got: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return missing_fails((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return missing_fails((yield))


@pytest.fixture(autouse=True)
def poisoned_memory():
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def no_width(monkeypatch):
    """Processes that run tests side by side are given one, which a user's pipe has not."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """Commands that a test runs in its process say nothing of how busy the machine is with other tests."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)


@pytest.fixture
def full_disk():
    """A context in which no file grows beyond so many bytes: writing more fails, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
