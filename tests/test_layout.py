"""The folders at the top level, the package list and the links say the same thing."""

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOUNTED = ("passes", "frontends", "backends")


def test_package_list_names_every_folder_with_an_init() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    bases = [(("qcomp",), ROOT / "qcomp"), *((("qcomp", name), ROOT / name) for name in MOUNTED)]
    found = {
        ".".join((*prefix, *init.parent.relative_to(base).parts))
        for prefix, base in bases
        for init in base.rglob("__init__.py")
        if not any(name in init.parent.relative_to(base).parts for name in MOUNTED)
    }
    assert set(setuptools["packages"]) == found


@pytest.mark.skipif(os.name == "nt", reason="links need developer mode on Windows")
@pytest.mark.parametrize("name", MOUNTED)
def test_link_points_at_the_folder(name: str) -> None:
    link = ROOT / "qcomp" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)


@pytest.mark.parametrize("name", MOUNTED)
def test_mounted_folder_is_a_subpackage_and_not_a_package(name: str) -> None:
    import_module(f"qcomp.{name}")
    assert name not in sys.modules


def test_importing_qcomp_imports_no_heavy_package() -> None:
    heavy = ("numpy", "torch", "qiskit", "onnx", "onnxruntime", "numba", "lark", "pennylane")
    code = f"import qcomp, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
