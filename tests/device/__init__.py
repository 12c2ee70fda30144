"""A PrivateUse1 device for tests, built with the C++ compiler of this machine; its name is "host"."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

NAME = "host"
SOURCE = Path(__file__).with_name("device.cpp")


class Module:
    """`torch.host`: what PyTorch asks of the module of a device."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device(device: torch.device) -> AbstractContextManager:
        return nullcontext()

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]


def compiler() -> str | None:
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")


def build() -> Path:
    """The library, built where it is not there yet: once for each source and each PyTorch."""
    root = Path(torch.__file__).parent
    key = hashlib.sha256(SOURCE.read_bytes() + f"{torch.__version__} {sys.platform}".encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"solomonic-device-{key}.so"
    if not library.exists():
        handle, partial = tempfile.mkstemp(suffix=".so", dir=library.parent)
        os.close(handle)
        link = [f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
        include = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
        command = [compiler(), "-std=c++20", "-O1", "-shared", "-fPIC", *include, str(SOURCE), *link, "-o", partial]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
        os.replace(partial, library)
    return library


def register() -> torch.device:
    """Makes the device known to this process, for good; once a process."""
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, Module)
    torch.ops.load_library(build())
    torch.ops.test_device.register()
    return torch.device(NAME)
