"""The design's table of rooms: who may import whom."""

import ast
from pathlib import Path

import solomonic

ROOT = Path(solomonic.__file__).parent
EVERYONE = {
    "spelling",
    "files",
    "jsontext",
    "machine",
    "progress",
}  # messages, whole files, JSON, what there is room for
MAY = {
    "ops": set(),
    "layers": {"ops"},
    "mixers": {"ops", "layers"},
    "model": {"mixers", "layers", "ops"},
    "presets": {"model", "mixers"},
    "tasks": {"corpus", "theory"},
    "theory": set(),
    "train": {"model", "tasks", "checkpoint"},
    "checkpoint": {"tensors"},
    "compare": {"model", "presets", "tasks", "train", "checkpoint", "__init__"},
    "formats": {"model", "mixers", "tensors"},
    "tokenizer": set(),
    "folder": {"model", "formats", "tensors", "tokenizer", "__init__"},
    "corpus": set(),
    "pretrain": {"model", "ops", "corpus", "evaluate", "tensors", "tokenizer", "train", "checkpoint", "__init__"},
    "bench": {"model", "presets", "mixers", "ops"},
    "attach": {"model", "mixers", "ops", "memory", "folder"},
    "hedge": {"model"},
    "remember": {"attach", "memory", "model", "tensors", "tokenizer"},
    "transduce": {"attach", "remember", "memory", "evaluate", "corpus", "model", "tokenizer"},
    "generate": {"model", "folder", "tensors", "tokenizer"},
    "serve": {"generate", "model", "tokenizer"},
    "evaluate": {"model", "folder", "corpus", "tokenizer", "tasks", "train", "hf"},
    "hf": {"model", "mixers", "formats"},
    "memory": {"ops"},
    "probe": {"model", "mixers", "ops"},
    "spelling": set(),
    "files": set(),
    "tensors": set(),
    "__init__": {"model", "presets"},
}
PACKAGES = {
    "ops": {"torch", "triton", "fla", "numpy", "numba", "llvmlite"},
    "mixers": {"torch"},
    "layers": {"torch"},
    "model": {"torch"},
    "presets": {"torch"},
    "tasks": {"torch", "numpy"},
    "formats": {"torch", "safetensors"},
    "tokenizer": {"numpy", "tokenizers"},
    "corpus": {"pyarrow"},
    "evaluate": {"torch", "numpy", "lm_eval", "jinja2"},
    "progress": {"tqdm", "numba"},
    "checkpoint": {"torch"},
    "pretrain": {"torch", "numpy", "accelerate", "tensorboard"},
    "bench": {"torch", "transformers", "fla"},
    "hf": {"torch", "transformers", "safetensors"},
    "transduce": {"torch", "numpy"},
    "generate": {"torch"},
    "serve": {"torch", "starlette", "uvicorn"},
    "memory": {"torch", "numpy", "pymilvus", "milvus_lite", "numba"},
    "theory": {"numpy", "scipy", "numba", "matplotlib", "av"},
    "probe": {"torch", "numpy", "scipy", "matplotlib"},
    "tensors": {"torch", "safetensors"},
}
BY_NOBODY = {"cli", "__main__"}


def imports():
    """(file, room, imported room or None, imported package or None) of every import in the library."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield path, parts[0], *_target(name.name.split("."), 0, parts)
            elif isinstance(node, ast.ImportFrom):
                module = node.module.split(".") if node.module else []
                for name in node.names if not module else [None]:
                    yield path, parts[0], *_target(module or [name.name], node.level, parts)


def _target(module, level, parts):
    if level:
        base = list(parts[: len(parts) - level])
        where = [*base, *module]
        inside = (
            where[0] if where and ((ROOT / where[0]).is_dir() or (ROOT / f"{where[0]}.py").exists()) else "__init__"
        )
        return inside, None
    if module[0] == "solomonic":
        return (module[1] if len(module) > 1 else "__init__"), None
    return None, module[0]


def test_there_is_something_to_walk():
    rooms = {room for _, room, _, _ in imports()}
    assert {"ops", "mixers", "tasks", "compare", "cli"} <= rooms


def test_rooms_import_whom_the_table_allows():
    for path, room, other, _ in imports():
        if other is None or other == room or other in EVERYONE or room in BY_NOBODY:
            continue
        assert room in MAY, f"{path}: {room} is not in the table of rooms"
        assert other in MAY[room], f"{path}: {room} may not import {other}"


def test_rooms_import_what_packages_the_table_allows():
    import sys

    for path, room, _, package in imports():
        if package is None or package in sys.stdlib_module_names or room not in PACKAGES:
            continue
        assert package in PACKAGES[room], f"{path}: {room} may not import {package}"
