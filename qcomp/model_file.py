"""Writing an ONNX graph in memory to a file: streamed, whole or not at all, any size."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from qcomp.atomic import atomic_group
from qcomp.errors import QcompError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["INLINE_LIMIT", "initializers", "model_bytes", "to_bytes", "write_model"]

INLINE_LIMIT = 1 << 28
"""Bytes of tensors up to which a model is one file. (Protobuf ends at 2 GiB, memory before.)"""

_ALWAYS_EXTERNAL = 3 << 29
_SMALL = 1024
_LINE, _PAGE = 64, 4096


def write_model(
    model: ir.Model,
    path: str | Path,
    *,
    external_threshold: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write a model to ``path``, its large tensors to ``path`` + ``.data`` beside it.

    Tensors that go to the data file are written one after the other, and each is let go before
    the next: of lazy and mapped tensors no more than one is in memory.

    Args:
        model: The graph. It is as it was when this returns.
        path: The ``.onnx`` file. What was there is replaced when all is written.
        external_threshold: Initializers of at least this many bytes go to the data file, and
            all of 1 KiB or more when they are over 1.5 GB together. By default all stay in the
            one file up to ``INLINE_LIMIT`` bytes together; beyond, those of 1 KiB or more go out.
        progress: Called with the name of each tensor before it is written to the data file.

    Returns:
        The files written, the model first.

    Raises:
        QcompError: When it cannot be written: a full disk, or a graph that no file can hold.
    """
    path = Path(path)
    location = f"{path.name}.data"
    large = _large(model, external_threshold)
    with atomic_group(path) as folder:
        stored: dict[int, ir.TensorProtocol] = {}
        if large:
            with open(folder / location, "wb") as file:
                stored = _stream(large, file, location, progress)
        data = _serialize(model, stored, str(path))
        with open(folder / path.name, "wb") as file:
            file.write(data)
    return [path, path.parent / location] if large else [path]


def to_bytes(model: ir.Model) -> bytes:
    """Return the model as the bytes of one ONNX file, all tensors inside.

    Raises:
        QcompError: When it is too large for that (2 GiB).
    """
    return _serialize(model, {}, "the model")


def initializers(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Give each initializer of a model and its tensor, those of subgraphs included."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value, value.const_value


def model_bytes(model: ir.Model) -> int:
    """Return the bytes of all initializers together, strings left out; nothing is read."""
    return sum(_size(tensor) for _, tensor in initializers(model))


def _size(tensor: ir.TensorProtocol) -> int:
    import onnx_ir as ir

    return 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes


def _large(model: ir.Model, threshold: int | None) -> list[ir.TensorProtocol]:
    """Return the distinct tensors that go to the data file, in the order of the graph."""
    total = model_bytes(model)
    if threshold is None:
        if total <= INLINE_LIMIT:
            return []
        threshold = _SMALL
    elif total > _ALWAYS_EXTERNAL:
        threshold = min(threshold, _SMALL)
    chosen = {
        id(tensor): tensor
        for _, tensor in initializers(model)
        if _size(tensor) >= max(threshold, 1)
    }
    return list(chosen.values())


def _stream(
    tensors: list[ir.TensorProtocol],
    file: BinaryIO,
    location: str,
    progress: Callable[[str], None] | None,
) -> dict[int, ir.TensorProtocol]:
    """Write tensors one by one; return, by identity, the references that replace them."""
    import onnx_ir as ir

    stored: dict[int, ir.TensorProtocol] = {}
    end = 0
    for tensor in tensors:
        name = tensor.name or ""
        if progress is not None:
            progress(name)
        size = tensor.nbytes
        align = _PAGE if size >= 16 * _PAGE else _LINE
        offset = -(-end // align) * align
        file.seek(offset)
        write = getattr(tensor, "tofile", None)
        if write is not None:
            write(file)
        else:
            file.write(tensor.tobytes())
        end = file.tell()
        if end - offset != size:
            raise QcompError(
                f"tensor '{name}' gave {end - offset} bytes where its type and shape need {size}"
            )
        file.flush()
        if os.fstat(file.fileno()).st_size < end:
            # NumPy's own writer does not look whether its last bytes found room.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
        stored[id(tensor)] = ir.ExternalTensor(
            location, offset, size, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )
    return stored


def _serialize(model: ir.Model, stored: dict[int, ir.TensorProtocol], where: str) -> bytes:
    """Return a model's protobuf bytes, with some tensors replaced and none left in other files."""
    import onnx_ir as ir

    swapped: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for value, tensor in list(initializers(model)):
            replacement = stored.get(id(tensor))
            if replacement is None and isinstance(tensor, ir.ExternalTensor):
                # The new model stands alone: it does not point to the files of the old one.
                replacement = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
            if replacement is not None:
                swapped.append((value, tensor))
                value.const_value = replacement
        proto = ir.to_proto(model)
        _drop_repeated_types(proto.graph)
        data: bytes = proto.SerializeToString(deterministic=True)
        return data
    except (RuntimeError, ValueError, TypeError) as error:
        raise QcompError(
            "the graph cannot be written as ONNX",
            where=where,
            why=str(error.__cause__ or error)[:500],
            hint="protobuf holds at most 2 GiB: large constants must be initializers",
        ) from error
    finally:
        for value, tensor in swapped:
            value.const_value = tensor


def _drop_repeated_types(graph: onnx.GraphProto) -> None:
    """Take away the value infos of initializers: the tensors themselves say type and shape."""
    stored = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.value_info if value.name not in stored]
    if len(kept) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(kept)
