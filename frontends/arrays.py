"""The frontend ``arrays``: a matrix, a vector or an image becomes a circuit's program."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import SourceError, UsageError, suggest
from qcomp.ir.arrays import array_program
from qcomp.ir.program import Program

__all__ = ["ArrayFrontend"]

_SUFFIXES = frozenset({".npy", ".npz"})
_MAX_BYTES = 1 << 32
"""Most bytes of an array in a file."""

_KINDS: Mapping[str, str] = {"unitary": "Unitary", "state": "State", "image": "Image"}
_OPTIONS = {"Unitary": ("accuracy",), "State": ("fidelity",), "Image": ("epsilon",)}
"""The options of the pass that lowers a node, which may be said when the array is read."""

_PADDED = 1e-12
"""A norm this near to 1 is not worth a word."""


class ArrayFrontend:
    """Reads numpy arrays, ``.npy`` and ``.npz`` files; nothing is unpickled.

    A square matrix is a unitary, a vector a state, and with ``kind="image"`` a matrix an image.
    A state is divided by its norm and filled with zeros to 2^n entries, a unitary is extended by
    the identity to 2^n rows; the program's notes say so.
    """

    name = "arrays"

    def accepts(self, source: object) -> bool:
        """Tell whether ``source`` is an array or looks like a file of some; nothing is read."""
        if isinstance(source, np.ndarray):
            return True
        if isinstance(source, (str, os.PathLike)):
            text = os.fspath(source)
            return isinstance(text, str) and Path(text).suffix.lower() in _SUFFIXES
        return False

    def read(
        self,
        source: object,
        *,
        kind: str | None = None,
        array: str | None = None,
        accuracy: float | None = None,
        fidelity: float | None = None,
        epsilon: float | None = None,
    ) -> Program:
        """Read an array.

        Args:
            source: A numpy array, or the path of a ``.npy`` or ``.npz`` file.
            kind: ``unitary``, ``state`` or ``image``; by the array's shape if not given.
            array: Which array of a ``.npz`` file; needed where it holds several.
            accuracy: For a unitary: how far the matrix may be from one (``synthesize-unitary``).
            fidelity: For a state: how much of it has to be met (``prepare-state``).
            epsilon: For an image: how much a pixel may change (``encode-image``).

        Returns:
            The program: one node, which a pass lowers to a circuit.

        Raises:
            SourceError: If the file cannot be read, or its array is none of the three.
            UsageError: If an option is wrong, or is one of another kind.
        """
        name = ""
        where = "the array"
        if isinstance(source, np.ndarray):
            if array is not None:
                raise UsageError("an array in memory has no name", hint="leave 'array' out")
            values = source
        elif isinstance(source, (str, os.PathLike)):
            where = os.fspath(source)
            values, name = _load(Path(source), array)
        else:
            raise SourceError(f"a {type(source).__name__} is no array")
        op = _op_of(values, kind, where)
        given = {"accuracy": accuracy, "fidelity": fidelity, "epsilon": epsilon}
        options = {key: float(value) for key, value in given.items() if value is not None}
        for key in options:
            if key not in _OPTIONS[op]:
                raise UsageError(
                    f"'{key}' is no option of a {op.lower()}",
                    hint="it takes " + ", ".join(_OPTIONS[op]),
                )
        try:
            values, notes = _tidy(op, values)
            program = array_program(op, values, options, _identifier(name))
        except SourceError as error:
            error.where = where
            raise
        program.source = where if where != "the array" else ""
        program.notes += notes
        return program


def _load(path: Path, wanted: str | None) -> tuple[NDArray[Any], str]:
    """Return an array of a file, and a name for it."""
    try:
        if path.suffix.lower() == ".npy":
            if wanted is not None:
                raise UsageError("a .npy file holds one array", hint="leave 'array' out")
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            _check_size(mapped.nbytes, path)
            return np.array(mapped), path.stem
        with zipfile.ZipFile(path) as archive:
            _check_size(max((m.file_size for m in archive.infolist()), default=0), path)
        with np.load(path, allow_pickle=False) as arrays:
            return _chosen(arrays, wanted, path)
    except (SourceError, UsageError):
        raise
    except Exception as error:  # numpy and zipfile raise nearly anything for a broken file
        raise SourceError(
            "the file of arrays cannot be read",
            where=str(path),
            why=str(error)[:300] or type(error).__name__,
            hint="write it by numpy.save or numpy.savez; pickled objects are not read",
        ) from error


def _chosen(arrays: Any, wanted: str | None, path: Path) -> tuple[NDArray[Any], str]:  # noqa: ANN401
    names = list(arrays.files)
    if not names:
        raise SourceError("the file holds no array", where=str(path))
    if wanted is None:
        if len(names) > 1:
            raise SourceError(
                f"the file holds {len(names)} arrays: {', '.join(names[:12])}",
                where=str(path),
                hint=f"say which: array='{names[0]}' (--array {names[0]})",
            )
        wanted = names[0]
    if wanted not in names:
        raise UsageError(
            f"the file has no array '{wanted}'", where=str(path), hint=suggest(wanted, names)
        )
    return np.asarray(arrays[wanted]), wanted if len(names) > 1 else path.stem


def _check_size(size: int, path: Path) -> None:
    if size > _MAX_BYTES:
        raise SourceError(
            f"an array of {size / 2**30:.1f} GiB is too large to become a circuit", where=str(path)
        )


def _op_of(values: NDArray[Any], kind: str | None, where: str) -> str:
    if values.dtype.kind not in "biufc":
        raise SourceError(
            f"an array of {values.dtype} has no numbers",
            where=where,
            hint="give real or complex numbers",
        )
    if kind is not None:
        if kind not in _KINDS:
            raise UsageError(f"there is no kind of array '{kind}'", hint=suggest(kind, _KINDS))
        return _KINDS[kind]
    if values.ndim == 2 and 1 not in values.shape:
        return "Unitary"
    if values.ndim in (1, 2):
        return "State"
    raise SourceError(
        f"an array of {values.ndim} axes is no unitary, state or image",
        where=where,
        hint="give a square matrix, a vector, or a matrix with kind='image'",
    )


def _tidy(op: str, values: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Return the array as its node takes it, and what was done to it."""
    notes: list[str] = []
    if op == "Image":
        return values, notes
    values = values.astype(np.complex128)
    if op == "State":
        values = values.reshape(-1) if 1 in values.shape else values
    if values.ndim != (1 if op == "State" else 2) or not values.size:
        return values, notes
    size = len(values)
    full = 1 << (size - 1).bit_length()
    if op == "Unitary":
        if values.shape == (size, size) and full != size:
            wide = np.eye(full, dtype=np.complex128)
            wide[:size, :size] = values
            notes.append(f"the matrix of {size} rows is extended by the identity to {full}")
            return wide, notes
        return values, notes
    norm = float(np.linalg.norm(values))
    if norm == 0:
        raise SourceError(
            "a vector of zeros is no state", hint="give amplitudes of which one at least is not 0"
        )
    if np.isfinite(norm):
        values = values / norm
        if abs(norm - 1) > _PADDED:
            notes.append(f"the vector of norm {norm:.6g} is divided by it")
    if full != size:
        values = np.concatenate([values, np.zeros(full - size, dtype=np.complex128)])
        notes.append(f"the vector of {size} amplitudes is filled with zeros to {full}")
    return values, notes


def _identifier(name: str) -> str:
    """Return a name that a circuit may have; empty where none can be made of it."""
    text = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    return text if text[:1].isalpha() else ""
