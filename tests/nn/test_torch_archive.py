"""A ``.pt2`` file from anyone: what would run code is refused before torch sees it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qcomp.errors import SourceError
from qcomp.frontends.torch_archive import load_exported_program

torch.set_num_threads(1)


class Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).reshape(x.shape[0] * 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "plain.pt2"
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    torch.export.save(
        torch.export.export(Plain().eval(), (torch.zeros(2, 4),), dynamic_shapes=shapes), path
    )
    return path


def rewritten(
    source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **extra: bytes
) -> Path:
    """Copy an archive with its entries changed, dropped (None) or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in extra.items():
            new.writestr(f"{root}/{name}", data)
    return target


def replaced(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if not name.startswith("models/"):
            return data
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return change


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (self.path, "w"))


def test_an_untouched_archive_loads(saved: Path) -> None:
    program = load_exported_program(saved)
    assert program.module()(torch.zeros(5, 4)).shape == (15,)


def test_a_rewritten_but_harmless_archive_loads(saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "same.pt2", lambda _, data: data)
    assert load_exported_program(path).module()(torch.zeros(5, 4)).shape == (15,)


def test_sample_inputs_that_unpickle_code_are_refused(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save(((Trap(str(marker)),), {}), buffer)

    def change(name: str, data: bytes) -> bytes:
        return buffer.getvalue() if name.startswith("data/sample_inputs/") else data

    path = rewritten(saved, tmp_path / "trap.pt2", change)
    with pytest.raises(SourceError, match="sample inputs that are no plain tensors"):
        load_exported_program(path)
    assert not marker.exists()


def test_pickled_weights_and_objects_are_refused(saved: Path, tmp_path: Path) -> None:
    def pickled(name: str, data: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            return data.replace(b'"use_pickle": false', b'"use_pickle": true')
        return data

    path = rewritten(saved, tmp_path / "weights.pt2", pickled)
    with pytest.raises(SourceError, match="pickled tensors"):
        load_exported_program(path)

    def custom(name: str, data: bytes) -> bytes:
        if name.endswith("constants_config.json"):
            return json.dumps({"config": {"a": {"path_name": "opaque_obj_0"}}}).encode()
        return data

    marker = tmp_path / "ran"
    trap = pickle.dumps(Trap(str(marker)))
    path = rewritten(
        saved, tmp_path / "object.pt2", custom, **{"data/constants/opaque_obj_0": trap}
    )
    with pytest.raises(SourceError, match="could run any code"):
        load_exported_program(path)
    legacy = {"data/weights/model.pt": trap}
    path = rewritten(saved, tmp_path / "legacy.pt2", lambda _, data: data, **legacy)
    with pytest.raises(SourceError, match="a pickle"):
        load_exported_program(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.serialization.os.system",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.foreign.anything.default",
        "_operator.methodcaller",
    ],
)
def test_calls_of_anything_but_tensor_operators_are_refused(
    saved: Path, tmp_path: Path, target: str
) -> None:
    change = replaced("torch.ops.aten.linear.default", target)
    path = rewritten(saved, tmp_path / "call.pt2", change)
    with pytest.raises(SourceError, match="a call of"):
        load_exported_program(path)


def test_expressions_and_guards_that_are_code_are_refused(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for text in (
        f"open('{marker}', 'w')",
        "().__class__",
        "__import__('os')",
        "exec(Symbol('s77'))",
        "Symbol('s77; x')",
        "lambda: 0",
        "[s77]",
    ):

        def change(name: str, data: bytes, text: str = text) -> bytes:
            if not name.startswith("models/"):
                return data
            graph = json.loads(data)
            sizes = next(iter(graph["graph_module"]["graph"]["tensor_values"].values()))["sizes"]
            sizes[0] = {"as_expr": {"expr_str": text, "hint": None}}
            return json.dumps(graph).encode()

        path = rewritten(saved, tmp_path / "expression.pt2", change)
        with pytest.raises(SourceError, match="an expression"):
            load_exported_program(path)
    for text in ("open('x', 'w')", "__import__('os').system('true')", "L['x'].__class__", "(y:=1)"):

        def guarded(name: str, data: bytes, text: str = text) -> bytes:
            if not name.startswith("models/"):
                return data
            return json.dumps(json.loads(data) | {"guards_code": [text]}).encode()

        path = rewritten(saved, tmp_path / "guard.pt2", guarded)
        with pytest.raises(SourceError, match="a guard"):
            load_exported_program(path)
    assert not marker.exists()


def test_compiled_code_and_doubled_entries_are_refused(saved: Path, tmp_path: Path) -> None:
    library = {"data/aotinductor/model/model.so": b"\x7fELF"}
    path = rewritten(saved, tmp_path / "library.pt2", lambda _, data: data, **library)
    with pytest.raises(SourceError, match="compiled code"):
        load_exported_program(path)
    double = {"models/model.json": b"{}"}
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = rewritten(saved, tmp_path / "double.pt2", lambda _, data: data, **double)
    with pytest.raises(SourceError, match="two entries of one name"):
        load_exported_program(path)


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(Plain(), tmp_path / "model.pt")
    with pytest.raises(SourceError, match="pickled PyTorch file") as caught:
        load_exported_program(tmp_path / "model.pt")
    assert "torch.export.save" in str(caught.value)


def test_files_that_are_no_archive_are_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pt2").write_bytes(b"")
    (tmp_path / "cut.pt2").write_bytes(saved.read_bytes()[:400])
    (tmp_path / "text.pt2").write_text("not a zip")
    for name in ("empty.pt2", "cut.pt2", "text.pt2"):
        with pytest.raises(SourceError, match="not a saved ExportedProgram"):
            load_exported_program(tmp_path / name)
    with pytest.raises(SourceError, match="cannot be read"):
        load_exported_program(tmp_path / "missing.pt2")


def test_a_second_archive_hidden_in_the_file_is_not_what_torch_reads(
    saved: Path, tmp_path: Path
) -> None:
    squeezed = tmp_path / "squeezed.pt2"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(SourceError, match="compressed"):
        load_exported_program(squeezed)
    # Without its own directory at the end, the archive inside, of the sample inputs, is found.
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(saved.read_bytes()[:-300])
    with pytest.raises(SourceError, match="pickled PyTorch file"):
        load_exported_program(cut)


def test_flipped_bytes_end_in_one_clear_error_or_in_a_program(saved: Path, tmp_path: Path) -> None:
    import random

    data = saved.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(40):
        broken = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        path = tmp_path / "broken.pt2"
        path.write_bytes(bytes(broken))
        try:
            load_exported_program(path)
        except SourceError:
            refused += 1
    assert refused > 5
