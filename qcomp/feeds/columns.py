"""Named arrays with samples first, read a few rows at a time: ``.npz``, ``.npy``, a dict."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from qcomp.errors import UsageError
from qcomp.feeds.inputs import Array, pickled

__all__ = ["ArrayColumns", "Columns", "FileColumns", "Header", "Rows"]

_NPY, _ZIP = b"\x93NUMPY", b"PK"
_CHUNK = 1 << 24


class Header(NamedTuple):
    """What is known of an array without reading it; None is a size that differs by sample."""

    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]


class Rows(ABC):
    """One array, read forward."""

    @abstractmethod
    def read(self, count: int) -> Array:
        """Return the next ``count`` rows; an array of rank 0 is returned whole."""

    @abstractmethod
    def skip(self, count: int) -> None:
        """Pass over rows."""

    def close(self) -> None:
        """Let go of what the rows are read from."""
        return None


class Columns(ABC):
    """Named arrays, samples first.

    Attributes:
        headers: Name -> type and shape.
        where: What the arrays are, for messages.
    """

    headers: Mapping[str, Header]
    where: str

    @abstractmethod
    def rows(self, name: str) -> Rows:
        """Start reading one array."""

    def length(self, name: str) -> int:
        """Return the number of rows of an array; 1 for one of rank 0."""
        shape = self.headers[name].shape
        return 1 if not shape else int(shape[0] or 0)

    def whole(self, name: str) -> Array:
        """Return one array as a whole."""
        with contextlib.closing(self.rows(name)) as rows:
            return rows.read(self.length(name))


class _ArrayRows(Rows):
    def __init__(self, array: Array) -> None:
        self._array, self._next = array, 0

    def read(self, count: int) -> Array:
        if self._array.ndim == 0:
            return self._array
        start = self._next
        self._next += count
        return self._array[start : self._next]

    def skip(self, count: int) -> None:
        self._next += count


class ArrayColumns(Columns):
    """Arrays in memory."""

    def __init__(self, arrays: Mapping[str, Array], where: str = "the data") -> None:
        self.where = where
        self._arrays = arrays
        self.headers = {name: Header(a.dtype, a.shape) for name, a in arrays.items()}

    def rows(self, name: str) -> Rows:
        """Start reading one array."""
        return _ArrayRows(self._arrays[name])


class FileColumns(Columns):
    """The arrays of an ``.npz`` file, or the one array of an ``.npy`` file.

    Only the rows asked for are read and, in a compressed file, unpacked. An array in column-major
    order is read as a whole. Nothing is ever unpickled.

    Args:
        path: The file; what it is is told by its first bytes.

    Raises:
        UsageError: If it cannot be read, or is neither.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.where = str(self.path)
        self._zip = False
        with self._reading():
            with open(self.path, "rb") as file:
                magic = file.read(6)
            self._zip = magic[:2] == _ZIP
            if not self._zip and magic != _NPY:
                raise UsageError(
                    f"'{self.path}' is no data file",
                    why="it is empty" if not magic else "it is neither .npz nor .npy",
                    hint="save one with numpy.savez(path, input_name=array)",
                )
            self.headers = self._read_headers()
        if not self.headers:
            raise UsageError(f"'{self.path}' holds no array")

    def rows(self, name: str) -> Rows:
        """Start reading one array."""
        with self._reading(name):
            return _FileRows(self, name)

    def _read_headers(self) -> dict[str, Header]:
        if not self._zip:
            with open(self.path, "rb") as file:
                header, _, start = _header(file, self.path.stem)
                self._check_size(header, start, os.fstat(file.fileno()).st_size)
            return {self.path.stem: header}
        headers = {}
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as file:
                    header, _, start = _header(file, name)
                self._check_size(header, start, info.file_size)
                headers[name] = header
        return headers

    @staticmethod
    def _check_size(header: Header, start: int, size: int) -> None:
        if start + _bytes(header) != size:
            raise ValueError("its header does not fit its size")

    @contextlib.contextmanager
    def open_member(self, name: str) -> Iterator[IO[bytes]]:
        """Open the bytes of one array."""
        if not self._zip:
            with open(self.path, "rb") as file:
                yield file
            return
        with zipfile.ZipFile(self.path) as archive:
            stored = name + ".npy" if name + ".npy" in archive.NameToInfo else name
            with archive.open(stored) as member:
                yield member

    @contextlib.contextmanager
    def _reading(self, name: str = "") -> Iterator[None]:
        """Turn what the libraries say of a broken file into one clear error."""
        where = f"array '{name}'" if name else ""
        try:
            yield
        except FileNotFoundError as error:
            raise UsageError(f"there is no file '{self.path}'", hint="check the path") from error
        except IsADirectoryError as error:
            raise UsageError(f"'{self.path}' is a folder") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error) as error:
            raise UsageError(
                f"'{self.path}' is damaged",
                where=where,
                why=str(error) or type(error).__name__,
                hint="the file may be incomplete: make it again with numpy.savez",
            ) from error
        except (OSError, RuntimeError, NotImplementedError, KeyError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"'{self.path}' cannot be read", where=where, why=reason) from error


class _FileRows(Rows):
    """One array of a file. A name is opened anew for each round, so rounds never meet."""

    def __init__(self, owner: FileColumns, name: str) -> None:
        self._owner, self._name = owner, name
        self._stack = contextlib.ExitStack()
        try:
            self._file = self._stack.enter_context(owner.open_member(name))
            self._header, column_major, _ = _header(self._file, name)
            self._left = owner.length(name)
            self._whole: Rows | None = None
            if column_major and len(self._header.shape) > 1:
                flat = self._take(_bytes(self._header))
                self._whole = _ArrayRows(
                    flat.view(self._header.dtype).reshape(_sizes(self._header), order="F")
                )
        except BaseException:
            self._stack.close()
            raise

    def _take(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        data = bytearray()
        while len(data) < size:
            part = self._file.read(min(size - len(data), _CHUNK))
            if not part:
                raise EOFError("it ends too early")
            data += part
        return np.frombuffer(data, np.uint8)

    def _row_bytes(self) -> int:
        sizes = _sizes(self._header)
        return math.prod(sizes[1:]) * self._header.dtype.itemsize

    def read(self, count: int) -> Array:
        if self._whole is not None:
            return self._whole.read(count)
        sizes = _sizes(self._header)
        with self._owner._reading(self._name):
            count = min(count, self._left)
            flat = self._take(count * self._row_bytes())
            self._left -= count
            if not self._left:
                # The checksum of a packed array is compared when its end is met.
                self._file.read(1)
        if not sizes:
            return flat.view(self._header.dtype).reshape(())
        if not flat.size:
            return np.zeros((count, *sizes[1:]), self._header.dtype)
        return flat.view(self._header.dtype).reshape(count, *sizes[1:])

    def skip(self, count: int) -> None:
        if self._whole is not None:
            self._whole.skip(count)
            return
        while count > 0:
            step = min(count, max(1, _CHUNK // max(self._row_bytes(), 1)))
            self.read(step)
            count -= step

    def close(self) -> None:
        self._stack.close()


def _header(file: IO[bytes], name: str) -> tuple[Header, bool, int]:
    """Read the header of an ``.npy``: (type and shape, column-major, bytes of the header)."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"arrays of .npy version {version[0]}.{version[1]} are not plain numbers")
    if dtype.hasobject:
        raise pickled(f"the array '{name}'")
    if dtype.fields is not None or dtype.subdtype is not None:
        raise UsageError(f"the array '{name}' holds records, not plain numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape {shape} has a negative size")
    return Header(dtype, tuple(shape)), bool(fortran), file.tell()


def _sizes(header: Header) -> tuple[int, ...]:
    return tuple(int(size or 0) for size in header.shape)


def _bytes(header: Header) -> int:
    return math.prod(_sizes(header)) * header.dtype.itemsize
