"""A file is there whole or as it was: after an error, a full disk, a process that was killed."""

import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from solomonic._utils.files import replacing, write, write_all
from solomonic.checkpoints.tensors import write_tensors


def test_a_new_file_and_its_folders(tmp_path):
    write(tmp_path / "a" / "b" / "file", "text: é\n")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"text: \xc3\xa9\n"
    write(str(tmp_path / "a" / "b" / "file"), b"\xff")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"\xff"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("new, but")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_no_new_file(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "file"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path, full_disk):
    text, tensors = tmp_path / "text", tmp_path / "tensors"
    write(text, "old")
    write_tensors(tensors, {"a": torch.arange(3)}, {})
    with full_disk(1000):
        with pytest.raises(OSError):
            write(text, "x" * 5000)
        with pytest.raises(OSError, match="tensors"):
            write_tensors(tensors, {"a": torch.zeros(5000)}, {})
    assert text.read_text() == "old" and load_file(tensors)["a"].tolist() == [0, 1, 2]
    assert sorted(tmp_path.iterdir()) == [tensors, text]


def test_files_that_belong_together_are_all_new_or_all_old(tmp_path, full_disk):
    write_all(tmp_path, {"a": "old", "b": "é"})
    (tmp_path / ".a.partial").write_text("of a process that was killed")
    with full_disk(1000), pytest.raises(OSError, match=str(tmp_path)):
        write_all(tmp_path, {"a": "new", "b": "x" * 5000, "c": ""})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "é"}
    write_all(tmp_path, {"a": "new", "c": ""})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "é", "c": ""}


def test_a_killed_process_leaves_the_old_file_and_the_next_write_clears_up(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    program = (
        "import os, sys; from solomonic._utils.files import replacing\n"
        "with replacing(sys.argv[1]) as partial:\n    partial.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    write(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_who_may_read_a_file_stays_as_it_was(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o022)
    try:
        write(path, "a")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        for mode in (0o600, 0o664, 0o400):
            path.chmod(mode)
            write(path, f"{mode}")
            assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_text() == f"{mode}"
    finally:
        os.umask(before)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(ValueError, match="got a folder"):
        write(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tensors_come_back(tmp_path):
    kinds = (torch.float32, torch.bfloat16, torch.int64, torch.bool)
    tensors = {f"a.{i}": torch.arange(6).view(2, 3).to(kind) for i, kind in enumerate(kinds)} | {"none": torch.zeros(0)}
    write_tensors(tmp_path / "file", tensors, {"about": "é"})
    for name, tensor in load_file(tmp_path / "file").items():
        assert tensor.dtype == tensors[name].dtype and torch.equal(tensor, tensors[name])
