"""Opening a ``.pt2`` archive from anyone without running what it holds.

``torch.export.load`` unpickles, imports and evaluates parts of the archive. Everything of that
kind is looked at first, and the archive is refused unless each part is of the harmless sort that
``torch.export.save`` writes for a model of plain tensors. What torch then reads is a copy of the
entries that were looked at, never the file itself: two readers of one zip file may see two
different archives in it.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.errors import SourceError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["load_exported_program"]

_SAVE = "save the model by torch.export.save(torch.export.export(model, inputs), path)"
_MAX_JSON = 1 << 28
_MAX_SAMPLES = 1 << 28
_MAX_ENTRIES = 1 << 17

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|qcomp|quantized|quantized_decomposed|torchvision|onnx)"
    r"\.[A-Za-z_]\w*\.[A-Za-z]\w*"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|wrap_with_set_grad_enabled)"
    r"|torch\.sym_(int|float|max|min|not|sqrt|ite|sum)"
    r"|torch\._sym_\w+"
    r"|math\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|abs|pos|eq|ne|lt|le|gt|ge|and_|or_"
    r"|xor|invert|not_|lshift|rshift|getitem|truth)"
)
_FILE_OPERATORS = frozenset({"from_file", "load_library", "save", "load"})
_TOKENS = re.compile(
    r"\s*(?:'([^']*)'|([A-Za-z_]\w*)|(\d+(?:\.\d*)?(?:e[+-]?\d+)?)|([-+*/%<>=!(),&|~]))"
)
_SYMBOL = re.compile(r"(?:[a-z]+_?)?[suz]\w*|batch\w*|-?\d+(?:\.\d*)?(?:e[+-]?\d+)?")
_FUNCTIONS = frozenset(
    "Symbol Integer Float Rational Mul Add Pow Max Min Mod PythonMod Abs FloorDiv CleanDiv CeilDiv "
    "ModularIndexing Where CeilToInt FloorToInt RoundToInt TruncToInt ToFloat IntTrueDiv "
    "FloatTrueDiv PowByNatural FloatPow Identity Eq Ne Equality Unequality Relational Ge Gt Le Lt "
    "GreaterThan StrictGreaterThan LessThan StrictLessThan And Or Not Piecewise "
    "true false True False oo int_oo Infinity NegativeInfinity "
    "positive integer nonnegative nonzero negative real commutative finite zero precision "
    "evaluate".split()
)
_GUARD_NAMES = frozenset({"L", "math", "s"})
_GUARD_CALLS = frozenset({"size", "dim", "stride", "storage_offset", "numel", "isnan"})
_GUARD_ATTRIBUTES = _GUARD_CALLS | {"shape", "inf", "ndim"}
_GUARD_NODES = (
    ast.Expression,
    ast.Compare,
    ast.BoolOp,
    ast.BinOp,
    ast.UnaryOp,
    ast.Constant,
    ast.Subscript,
    ast.Load,
    ast.cmpop,
    ast.boolop,
    ast.operator,
    ast.unaryop,
)


def load_exported_program(path: str | os.PathLike[str]) -> ExportedProgram:
    """Return the ``ExportedProgram`` of a ``.pt2`` file.

    Args:
        path: The file.

    Raises:
        SourceError: If the file is no such archive, is broken, or holds anything that loading
            would unpickle, import or evaluate beyond plain tensors and shapes.
    """
    where = str(path)
    _register_circuit_operator()
    import torch

    with tempfile.TemporaryDirectory(prefix="qcomp-") as folder:
        checked = Path(folder) / "checked.pt2"
        try:
            with zipfile.ZipFile(Path(path)) as archive:
                _check_archive(archive, where)
                _copy_entries(archive, checked)
        except OSError as error:
            raise SourceError(
                "the file cannot be read", where=where, why=error.strerror or str(error)
            ) from error
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, ValueError) as error:
            raise SourceError(
                "this is not a saved ExportedProgram, or it is cut off",
                where=where,
                why=str(error),
                hint=_SAVE,
            ) from error
        try:
            return torch.export.load(checked)
        except Exception as error:  # torch raises nearly anything for a broken archive
            raise SourceError(
                "torch cannot load the ExportedProgram",
                where=where,
                why=str(error).partition("\n")[0][:500] or type(error).__name__,
                hint=f"it may come from another version of torch; this is torch "
                f"{torch.__version__}",
            ) from error


def _copy_entries(archive: zipfile.ZipFile, target: Path) -> None:
    """Write the archive's entries as they were checked into a new archive."""
    with zipfile.ZipFile(target, "w") as copy:
        for entry in archive.infolist():
            with (
                archive.open(entry) as old,
                copy.open(entry.filename, "w", force_zip64=entry.file_size >= 1 << 30) as new,
            ):
                shutil.copyfileobj(old, new, 1 << 20)


def _register_circuit_operator() -> None:
    """Make ``qcomp::circuit`` known to torch, so that archives with it can be loaded."""
    from qcomp import registry

    registry.load("services", "torch-translations")


def _check_archive(archive: zipfile.ZipFile, where: str) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(entries) > _MAX_ENTRIES:
        raise SourceError("the archive has more entries than any model", where=where)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise SourceError("the archive is compressed, which torch never does", where=where)
    if len(set(names)) < len(names):
        raise SourceError("the archive holds two entries of one name", where=where)
    roots = {name.partition("/")[0] for name in names}
    inner = {name.partition("/")[2]: name for name in names}
    if len(roots) != 1 or "archive_format" not in inner:
        pickled = any(name.endswith(".pkl") for name in names)
        raise SourceError(
            "this is a pickled PyTorch file" if pickled else "this is not a saved ExportedProgram",
            where=where,
            why="a pickle can run any code when it is loaded" if pickled else "",
            hint=_SAVE,
        )
    for name in inner:
        if name.startswith("data/aotinductor/") or name.endswith((".so", ".dll", ".dylib")):
            raise _unsafe(f"compiled code ('{name}')", where)
        held = re.fullmatch(r"data/(weights|constants)/.*\.pt|data/constants/.*_obj.*", name)
        if held:
            raise _unsafe(f"a pickle ('{name}')", where)
    for name, entry in inner.items():
        if name.startswith("models/"):
            _check_graph(_json(archive, entry, where), where)
        elif name.endswith("_config.json"):
            _check_payloads(_json(archive, entry, where), where)
        elif name.startswith("data/sample_inputs/"):
            _check_samples(archive, entry, where)


def _unsafe(what: str, where: str) -> SourceError:
    return SourceError(
        f"the archive holds {what}, and loading it could run any code",
        where=where,
        hint="export a model of plain tensors, or give the nn.Module itself",
    )


def _json(archive: zipfile.ZipFile, entry: str, where: str) -> object:
    if archive.getinfo(entry).file_size > _MAX_JSON:
        raise SourceError(f"'{entry}' is larger than any graph", where=where)
    try:
        return json.loads(archive.read(entry))
    except RecursionError as error:
        raise SourceError(f"'{entry}' is nested too deeply", where=where) from error


def _walk(value: object) -> Iterator[tuple[str, object]]:
    """Yield every (key, value) of the dictionaries in a JSON value."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key, inner in item.items():
                yield str(key), inner
                waiting.append(inner)
        elif isinstance(item, list):
            waiting.extend(item)


def _check_payloads(config: object, where: str) -> None:
    for key, value in _walk(config):
        if key == "use_pickle" and value is not False:
            raise _unsafe("pickled tensors", where)
        if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value)):
            raise _unsafe(f"an object '{value}'", where)


def _check_samples(archive: zipfile.ZipFile, entry: str, where: str) -> None:
    """Refuse sample inputs that torch's restricted unpickler does not take."""
    import pickle

    import torch

    if archive.getinfo(entry).file_size > _MAX_SAMPLES:
        raise SourceError(f"'{entry}' is larger than any sample input", where=where)
    data = archive.read(entry)
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, AttributeError) as error:
        raise _unsafe("sample inputs that are no plain tensors", where) from error


def _check_graph(graph: object, where: str) -> None:
    for key, value in _walk(graph):
        if key == "target" and isinstance(value, str):
            parts = value.split(".")
            if not _OPERATORS.fullmatch(value) or _FILE_OPERATORS & set(parts):
                raise _unsafe(f"a call of '{value}'", where)
        elif key == "expr_str" and not _is_shape_expression(value):
            raise _unsafe(f"an expression '{str(value)[:80]}'", where)
        elif key == "guards_code":
            for guard in value if isinstance(value, list) else [value]:
                if not _is_plain_guard(guard):
                    raise _unsafe(f"a guard '{str(guard)[:80]}'", where)


def _is_shape_expression(text: object) -> bool:
    """Whether an expression has only numbers, size symbols and sympy's arithmetic."""
    if not isinstance(text, str) or len(text) > 1 << 16:
        return False
    at = 0
    while text[at:].strip():
        match = _TOKENS.match(text, at)
        if match is None:
            return False
        quoted, word = match[1], match[2]
        if quoted is not None and not _SYMBOL.fullmatch(quoted):
            return False
        if word is not None and word not in _FUNCTIONS and not re.fullmatch(r"[suz]\w*", word):
            return False
        at = match.end()
    return True


def _is_plain_guard(text: object) -> bool:
    """Whether a guard only compares sizes and values of the inputs."""
    if not isinstance(text, str) or len(text) > 1 << 16:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name):
                if name not in _GUARD_NAMES:
                    return False
            case ast.Attribute(attr=name):
                if name not in _GUARD_ATTRIBUTES:
                    return False
            case ast.Call(func=ast.Attribute(attr=name), keywords=[]):
                if name not in _GUARD_CALLS:
                    return False
            case _:
                if not isinstance(node, _GUARD_NODES):
                    return False
    return True
