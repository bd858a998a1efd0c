"""Finished layers on disk: a compile that was killed goes on where it was.

An entry is a folder of ``.npy`` files, named by a digest of all that it was made of: the weights,
the data, the options, the versions. It is written beside and renamed, so an entry that is there is
whole. Arrays come back mapped: they take no memory until they are read, and give it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.atomic import atomic_folder, is_full
from qcomp.errors import QcompError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "DiskValues",
    "Entry",
    "LayerStore",
    "digest",
    "give_back",
    "model_digest",
    "on_disk",
    "write_entry",
]

Array = npt.NDArray[np.generic]

_MARKER = "qcomp-layers.json"
_ENTRY = "entry.json"
_CHUNK = 1 << 24
_SMALL = 1 << 16
"""Bytes up to which a value of a stream stays in memory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished piece of work.

    Attributes:
        arrays: Name -> array, mapped and read-only.
        facts: What else is known of it, plain JSON.
    """

    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]


class LayerStore:
    """A folder of finished layers.

    Args:
        folder: Made when it is missing.
        keep: Whether it stays when the compile ended well.

    Attributes:
        taken: Entries that were found finished.
        made: Entries that were put in.

    Raises:
        UsageError: There is something else in that place.
        QcompError: The folder cannot be made.
    """

    def __init__(self, folder: str | Path, *, keep: bool = True) -> None:
        self.folder = Path(folder).absolute()
        self.keep = keep
        self.taken = self.made = 0
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"'{folder}' is no folder for finished layers")
        if self.folder.is_dir() and any(self.folder.iterdir()) and not self._marker.is_file():
            raise UsageError(
                f"'{folder}' holds other files, so it is not taken for finished layers",
                hint="name a folder that is empty or not there",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._marker.write_text('{"format": 1}\n', encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error
        self._sweep()

    @property
    def _marker(self) -> Path:
        return self.folder / _MARKER

    def find(self, key: str) -> Entry | None:
        """Return a finished entry, None if there is none; one that is damaged is none."""
        folder = self.folder / key
        try:
            text = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
            arrays = {
                name: np.load(folder / f"{index}.npy", mmap_mode="r")
                for index, name in enumerate(text["arrays"])
            }
        except (OSError, ValueError, KeyError):
            return None
        self.taken += 1
        return Entry(arrays, text["facts"])

    def put(self, key: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> Entry:
        """Write an entry, whole or not at all, and return it mapped.

        Raises:
            QcompError: The disk is full, or the folder cannot be written.
        """
        try:
            write_entry(self.folder, key, arrays, facts)
        except QcompError as error:
            error.hint = f"{error.hint.partition(';')[0]}; {self.goes_on}".removeprefix("; ")
            raise
        entry = self.find(key)
        if entry is None:
            raise QcompError(f"what was written to '{self.folder}' cannot be read again")
        self.taken -= 1
        self.made += 1
        return entry

    @property
    def finished(self) -> int:
        """Entries that this run found or made."""
        return self.taken + self.made

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies in the folder, of this run or another."""
        return not any(self.folder.glob(f"*/{_ENTRY}"))

    @property
    def goes_on(self) -> str:
        """What to tell somebody whose compile ended early."""
        return (
            f"the layers that were finished are kept in '{self.folder}': the same command goes on "
            "from there"
        )

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for what is needed now; it goes when the block ends, however it ends.

        Raises:
            QcompError: The disk is full.
        """
        folder = Path(tempfile.mkdtemp(prefix=f"work-{os.getpid()}-", dir=self.folder))
        _ours.add(folder)
        try:
            yield folder
        except OSError as error:
            raise self._refused(error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _ours.discard(folder)

    def close(self) -> None:
        """Say that the compile ended well: a store that nobody asked to keep is removed."""
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a run that was killed left half-written."""
        for path in self.folder.iterdir():
            words = path.name.split("-")
            if words[0] == "work" and path not in _ours and not _runs(words[1]):
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith(".") and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def _refused(self, error: OSError) -> QcompError:
        full = is_full(error)
        return QcompError(
            f"the disk is full: '{self.folder}' takes no more"
            if full
            else f"cannot write to '{self.folder}'",
            why=error.strerror or str(error),
            hint=("free some space; " if full else "") + self.goes_on,
        )


def write_entry(
    folder: Path, key: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]
) -> None:
    """Write an entry into the folder of a store, from any process that sees it.

    Raises:
        QcompError: The folder is not there, the disk is full, or it cannot be written.
    """
    if not folder.is_dir():
        raise QcompError(
            f"a worker does not see the folder '{folder}'",
            hint="workers on other machines need the same file system: name a folder there with "
            "--cache",
        )
    with atomic_folder(folder / key, marker=_ENTRY) as place:
        for index, array in enumerate(arrays.values()):
            np.save(place / f"{index}.npy", array, allow_pickle=False)
        text = json.dumps({"arrays": list(arrays), "facts": dict(facts)})
        (place / _ENTRY).write_text(text, encoding="utf-8")


def _runs(number: str) -> bool:
    """Whether another process has that number; where that cannot be asked, it is taken to be so."""
    if not number.isdigit() or os.name == "nt":
        return True
    if int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


_ours: set[Path] = set()
"""Folders that this process works in."""


def give_back(array: Array | None) -> None:
    """Give the memory of a mapped array's pages back; a later access reads the file again."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def digest(*parts: object) -> str:
    """A digest of arrays, bytes and plain values, by their contents."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(repr((part.dtype.str, part.shape)).encode())
            flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            for start in range(0, flat.size, _CHUNK):
                found.update(flat[start : start + _CHUNK].data)
        elif isinstance(part, bytes):
            found.update(part)
        else:
            found.update(repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()[:40]


def tensor_digest(tensor: Any) -> str:  # any onnx_ir.TensorProtocol
    """A digest of what a tensor holds; one in a file is read in pieces."""
    found = hashlib.sha256(repr((str(tensor.dtype), tuple(tensor.shape.numpy()))).encode())
    if tensor.dtype.name == "STRING" or tensor.dtype.bitwidth < 8:
        found.update(repr(tensor.numpy().tolist()).encode())
        return found.hexdigest()
    array = np.asarray(tensor.numpy())
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK):
        found.update(flat[start : start + _CHUNK].data)
        if start % (16 * _CHUNK) == 0:
            give_back(array)
    give_back(array)
    return found.hexdigest()


def model_digest(model: ir.Model) -> str:
    """A digest of a graph and all constants that something reads."""
    import onnx_ir as ir

    from qcomp.model_file import initializers

    found = hashlib.sha256(repr(versions()).encode())
    seen: dict[int, str] = {}
    for value, tensor in initializers(model):
        if value.uses() or value.is_graph_output():
            if id(tensor) not in seen:
                seen[id(tensor)] = tensor_digest(tensor)
            found.update(f"{value.name}:{seen[id(tensor)]}\n".encode())
    for node in model.graph:
        proto = ir.to_proto(node)
        found.update(proto.SerializeToString(deterministic=True))
    for value in (*model.graph.inputs, *model.graph.outputs):
        found.update(repr((value.name, str(value.dtype), str(value.shape))).encode())
    return found.hexdigest()


def versions() -> tuple[tuple[str, str], ...]:
    """The versions that numbers depend on."""
    found = []
    for name in ("qcomp", "numpy", "scipy", "numba", "onnxruntime"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # used from a folder that was not installed
            found.append((name, ""))
    return tuple(found)


class DiskValues(MutableMapping[str, Array]):
    """Name -> array, the large ones in files: what a stream holds between two parts of a graph.

    Args:
        folder: Where the files go; made when it is missing.
        values: To begin with.
    """

    def __init__(self, folder: Path, values: Mapping[str, Array]) -> None:
        self._folder = folder
        self._kept: dict[str, Array | Path] = {}
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.update(values)

    def __getitem__(self, name: str) -> Array:
        """Return a value; one in a file is mapped anew."""
        kept = self._kept[name]
        if isinstance(kept, Path):
            mapped: Array = np.load(kept, mmap_mode="r")
            return mapped
        return kept

    def __setitem__(self, name: str, value: Array) -> None:
        """Put a value, in a file of its own if it is large."""
        self.pop(name, None)
        if not isinstance(value, np.ndarray) or value.nbytes <= _SMALL or value.dtype.hasobject:
            self._kept[name] = value
            return
        path = self._folder / f"{self._count}.npy"
        self._count += 1
        np.save(path, value, allow_pickle=False)
        self._kept[name] = path

    def __delitem__(self, name: str) -> None:
        """Forget a value and remove its file."""
        kept = self._kept.pop(name)
        if isinstance(kept, Path):
            kept.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """Give the names."""
        return iter(list(self._kept))

    def __len__(self) -> int:
        """Return how many values there are."""
        return len(self._kept)


def on_disk(
    chunks: Sequence[Mapping[str, Array]], folder: Path
) -> list[MutableMapping[str, Array]]:
    """Chunks of a stream whose large values lie in a folder."""
    return [DiskValues(folder / str(i), chunk) for i, chunk in enumerate(chunks)]
