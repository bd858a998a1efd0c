"""A tensor that stays in its file: mapped when read, never kept, refused when the file changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir

from qcomp.errors import SourceError

__all__ = ["MappedTensor"]


class MappedTensor(ir.ExternalTensor):
    """An ``onnx_ir.ExternalTensor`` of a checked file.

    The parent class keeps its mapping open once it was read, so a pass over a model of many
    gigabytes ends with the whole file counted as resident. Here each :meth:`numpy` maps anew
    and the memory goes with the last reference to the array. The file's identity is taken at
    construction: a file that is overwritten later is an error, never other weights.

    Args:
        path: The data file. The caller has checked that the model may read it.
        location: The name by which the model refers to the file, relative to the model's folder.
        offset: First byte of the tensor.
        dtype: Element type.
        shape: Static shape.
        name: The initializer's name.
        doc_string: Documentation text.
        metadata_props: The tensor's metadata.

    Raises:
        OSError: When the file cannot be examined.
    """

    __slots__ = ("_file", "_identity")

    def __init__(
        self,
        path: Path,
        location: str,
        offset: int,
        dtype: ir.DataType,
        *,
        shape: ir.Shape,
        name: str,
        doc_string: str | None = None,
        metadata_props: dict[str, str] | None = None,
    ) -> None:
        elements = 1
        for dim in shape.numpy():
            elements *= dim
        super().__init__(
            location,
            offset,
            (elements * dtype.bitwidth + 7) // 8,
            dtype,
            shape=shape,
            name=name,
            doc_string=doc_string,
            metadata_props=metadata_props,
            base_dir=path.parent,
        )
        self._file = path
        self._identity = _identity(path)

    @property
    def path(self) -> str:
        """The data file, links resolved."""
        return str(self._file)

    def numpy(self) -> Any:  # onnx_ir leaves the element type open
        """Return the tensor as a read-only array over a new mapping of the file.

        Types below one byte are unpacked, so these are copies.

        Raises:
            SourceError: When the file changed since it was read.
        """
        self._check()
        length = self.length or 0
        if length == 0:
            return np.empty(self.shape.numpy(), dtype=self.dtype.numpy())
        flat = np.memmap(self._file, np.uint8, "r", self.offset or 0, (length,))
        if self.dtype.bitwidth < 8:
            return ir.PackedTensor(np.asarray(flat), self.dtype, shape=self.shape).numpy()
        return np.asarray(flat).view(self.dtype.numpy()).reshape(self.shape.numpy())

    def __array__(self, dtype: Any = None) -> Any:  # NumPy's own protocol is untyped
        """Return :meth:`numpy`, cast when a type is asked for."""
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def tobytes(self) -> bytes:
        """Return the tensor's bytes, little endian, as they lie in the file.

        Raises:
            SourceError: When the file changed since it was read.
        """
        self._check()
        with open(self._file, "rb") as file:
            file.seek(self.offset or 0)
            return file.read(self.length or 0)

    def tofile(self, file: BinaryIO) -> None:
        """Copy the tensor's bytes to ``file`` in bounded pieces.

        Raises:
            SourceError: When the file changed since it was read.
        """
        self._check()
        if self.length:
            super().tofile(file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as a place in a file."""
        dims = tuple(self.shape.numpy())
        place = (self.path, str(self.location), self.offset or 0, int(self.dtype), dims)
        return _mapped, (*place, self.name or "")

    def _check_path_containment(self) -> None:
        """Do nothing: the path was checked, with links resolved, when the model was read."""

    def _check(self) -> None:
        try:
            same = _identity(self._file) == self._identity
        except OSError:
            same = False
        if not same:
            raise SourceError(
                f"the data file '{self.location}' of tensor '{self.name}' was changed or removed "
                "after the model was read",
                where=str(self._file),
                hint="read the model again",
            )


def _mapped(
    path: str, location: str, offset: int, dtype: int, dims: tuple[int, ...], name: str
) -> MappedTensor:
    kind = ir.DataType(dtype)
    return MappedTensor(Path(path), location, offset, kind, shape=ir.Shape(dims), name=name)


def _identity(path: Path) -> tuple[int, int, int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
