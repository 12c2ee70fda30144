"""Compiled functions and threads: as many as torch has, and nobody else's are changed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from solomonic.ops.jit import array, threads
from solomonic.ops.rowwise import convolve, gated_norm, rms_norm

CHILD = """
import os
import torch
from solomonic.ops.rowwise import rms_norm

torch.set_num_threads(THREADS)
x, one = torch.randn(4000, 32), torch.ones(32)
expected = rms_norm(x, one, 1e-5, "reference")
assert torch.allclose(rms_norm(x, one, 1e-5, "compiled"), expected, atol=1e-5)
assert torch.get_num_threads() == THREADS, torch.get_num_threads()
if not os.fork():
    torch.set_num_threads(1)
    assert torch.allclose(rms_norm(x, one, 1e-5, "compiled"), expected, atol=1e-5)
    os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
"""


@pytest.fixture
def several():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("count", [1, 2])
def test_threads_stay_as_they_are_and_a_fork_goes_on_alone(count):
    done = subprocess.run([sys.executable, "-c", CHILD.replace("THREADS", str(count))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_as_many_as_torch_has(several):
    most = threads()
    assert 1 <= most <= 3
    torch.set_num_threads(1)
    assert threads() == 1


def test_parts_give_what_one_gives(several):
    torch.manual_seed(0)
    x, z, weight = torch.randn(3, 2000, 20), torch.randn(3, 2000, 20), torch.randn(20)

    def run(count):
        torch.set_num_threads(count)
        inputs = [t.clone().requires_grad_() for t in (x, z, weight)]
        a, b, w = inputs
        y = gated_norm(a, b, w, 1e-5, "compiled") + rms_norm(a, w, 1e-5, "compiled")
        y = y[:, 3:] + convolve(a, w[:, None].expand(20, 4), None, True, "compiled")
        return [y, *torch.autograd.grad(y.square().sum(), inputs)]

    for got, expected in zip(run(3), run(1)):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_several_callers_at_once(several):
    torch.manual_seed(0)
    weight = torch.randn(40)
    inputs = [torch.randn(2000, 40) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda x: rms_norm(x, weight, 1e-5, "compiled"), inputs * 5))
    for x, y in zip(inputs * 5, got):
        torch.testing.assert_close(y, rms_norm(x, weight, 1e-5, "reference"))


BITS = """
import torch
from solomonic.ops.rowwise import gated_norm, rms_norm

torch.set_num_threads(2)
torch.manual_seed(0)
for size in (5, 16, 48, 100):
    x, weight = torch.randn(4000, size, requires_grad=True), torch.randn(size, requires_grad=True)
    y = rms_norm(x, weight, 1e-5, "compiled") + gated_norm(x, x, weight, 1e-5, "compiled")
    print([t.double().sum().item().hex() for t in (y, *torch.autograd.grad(y.square().sum(), (x, weight)))])
"""


def test_what_was_just_compiled_is_what_is_kept(tmp_path):
    """Else a run that goes on in another process would depart from one that was never stopped."""
    outputs = []
    for _ in range(2):
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", BITS], capture_output=True, text=True, env=env, check=True)
        outputs.append(done.stdout)
    assert outputs[0] and outputs[0] == outputs[1]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64, torch.int32, torch.bool])
def test_an_array_is_the_tensor_and_leaves_its_storage_free_to_be_resized(kind):
    """FSDP frees gathered weights by resizing their storage, which `Tensor.numpy` forbids."""
    x = torch.arange(6).view(2, 3).to(kind)
    numbers = array(x)
    assert numbers.shape == (2, 3) and (torch.from_numpy(numbers) == x).all() and numbers.ctypes.data == x.data_ptr()
    numbers[0, 0] = 1
    assert x[0, 0] == 1
    x.untyped_storage().resize_(0)
    assert array(torch.zeros(0, 3)).shape == (0, 3)
