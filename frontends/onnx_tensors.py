"""What is checked of each tensor of an untrusted ONNX model, before any of its data is used."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from qcomp.errors import SourceError

__all__ = ["MAX_ELEMENTS", "Findings", "check_tensor", "find_not_finite", "resolve_external"]

MAX_ELEMENTS = 2**62
"""More elements than this cannot be addressed; a shape that says so is absurd."""

_CHUNK = 1 << 23
_INT32_TYPES = frozenset(
    {
        ir.DataType.INT32,
        ir.DataType.INT16,
        ir.DataType.INT8,
        ir.DataType.UINT16,
        ir.DataType.UINT8,
        ir.DataType.BOOL,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.FLOAT8E4M3FNUZ,
        ir.DataType.FLOAT8E5M2,
        ir.DataType.FLOAT8E5M2FNUZ,
        ir.DataType.FLOAT8E8M0,
        ir.DataType.FLOAT6E2M3,
        ir.DataType.FLOAT6E3M2,
        ir.DataType.UINT4,
        ir.DataType.INT4,
        ir.DataType.FLOAT4E2M1,
        ir.DataType.UINT2,
        ir.DataType.INT2,
    }
)
_TYPED_FIELD = {dtype: "int32_data" for dtype in _INT32_TYPES} | {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
    ir.DataType.STRING: "string_data",
}
_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")
_COMPLEX = frozenset({ir.DataType.COMPLEX64, ir.DataType.COMPLEX128})


@dataclass
class Findings:
    """All that is wrong with a source, collected so that one error lists it.

    Attributes:
        errors: What and where, in the order met.
        warnings: What is legal but odd.
    """

    errors: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, what: str, where: str = "") -> None:
        """Note a fault; the hundredth raises, since nobody reads more."""
        self.errors.append((what, where))
        if len(self.errors) >= 100:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise one ``SourceError`` that tells every fault met so far.

        Raises:
            SourceError: When there is any.
        """
        if not self.errors:
            return
        what, where = self.errors[0]
        if len(self.errors) == 1:
            raise SourceError(what, where=where)
        shown = [f"{what} (at {where})" if where else what for what, where in self.errors[:20]]
        if len(self.errors) > len(shown):
            shown.append(f"and {len(self.errors) - len(shown)} more")
        raise SourceError(
            f"the ONNX model has {len(self.errors)} faults", why="\n    - ".join(["", *shown])
        )


def check_tensor(
    tensor: onnx.TensorProto, where: str, folder: Path | None, findings: Findings
) -> None:
    """Check that a tensor's type, shape and data agree, and where its data lies.

    Args:
        tensor: The tensor.
        where: Its place, for messages.
        folder: The model's folder, the only one its data may lie in; None when there is none.
        findings: Takes the faults.
    """
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        findings.error(f"unknown element type {tensor.data_type}", where)
        return
    if dtype == ir.DataType.UNDEFINED:
        findings.error("a tensor without an element type", where)
        return
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims):
        findings.error(f"a tensor of shape {_shape(dims)}: a dimension is negative", where)
        return
    elements = math.prod(dims)
    if elements > MAX_ELEMENTS:
        findings.error(f"a tensor of the absurd shape {_shape(dims)}", where)
        return
    if tensor.HasField("segment"):
        findings.error("a tensor in segments, which is not supported", where)
    elif tensor.data_location == onnx.TensorProto.EXTERNAL:
        if dtype == ir.DataType.STRING:
            findings.error("strings in external data, which ONNX does not allow", where)
        else:
            _check_external(tensor, dtype, elements, where, folder, findings)
    else:
        _check_inline(tensor, dtype, elements, where, findings)


def _check_inline(
    tensor: onnx.TensorProto, dtype: ir.DataType, elements: int, where: str, findings: Findings
) -> None:
    label = f"{dtype.short_name() if dtype != ir.DataType.STRING else 'string'}"
    label += _shape(tensor.dims)
    filled = [name for name in _FIELDS if len(getattr(tensor, name))]
    if tensor.HasField("raw_data"):
        if dtype == ir.DataType.STRING:
            findings.error("strings as raw data, which ONNX does not allow", where)
            return
        needed = (elements * dtype.bitwidth + 7) // 8
        if len(tensor.raw_data) != needed:
            findings.error(
                f"{label} needs {needed} bytes but {len(tensor.raw_data)} are there", where
            )
        if filled:
            findings.error(f"{label} has its data twice: raw and in {filled[0]}", where)
        return
    name = _TYPED_FIELD[dtype]
    wrong = [other for other in filled if other != name]
    if wrong:
        findings.error(f"{label} has its data in {wrong[0]}, which is for other types", where)
        return
    if dtype == ir.DataType.STRING or dtype.bitwidth >= 6:
        needed = elements * (2 if dtype in _COMPLEX else 1)
    else:
        needed = (elements * dtype.bitwidth + 7) // 8
    if len(getattr(tensor, name)) != needed:
        there = len(getattr(tensor, name))
        findings.error(f"{label} needs {needed} values in {name} but {there} are there", where)


def _check_external(
    tensor: onnx.TensorProto,
    dtype: ir.DataType,
    elements: int,
    where: str,
    folder: Path | None,
    findings: Findings,
) -> None:
    if folder is None:
        findings.error(
            "the tensor's data lies in another file, but a model from memory has no folder", where
        )
        return
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entries.setdefault(entry.key, entry.value) != entry.value:
            findings.error(f"external data tells its {entry.key} twice", where)
    try:
        path = resolve_external(entries.get("location", ""), folder)
        offset, length = _number(entries, "offset") or 0, _number(entries, "length")
    except SourceError as error:
        findings.error(error.what, where)
        return
    needed = (elements * dtype.bitwidth + 7) // 8
    label = f"{dtype.short_name()}{_shape(tensor.dims)}"
    if length is not None and length != needed:
        findings.error(f"{label} needs {needed} bytes of external data but has {length}", where)
    elif offset + needed > path.stat().st_size:
        findings.error(
            f"{label} needs bytes {offset} to {offset + needed} of '{path.name}', which has "
            f"{path.stat().st_size}",
            where,
        )


def resolve_external(location: str, folder: Path) -> Path:
    """Return the file that a model's external data lies in, when the model may read it.

    Args:
        location: The place as the model writes it.
        folder: The model's folder.

    Returns:
        The path with all links resolved: a plain file inside of ``folder``.

    Raises:
        SourceError: When it is outside of ``folder`` or is no plain file of its own.
    """
    if not location or "\0" in location:
        raise SourceError("external data without a file name")
    windows_drive = len(location) > 1 and location[1] == ":"
    parts = location.replace("\\", "/").split("/")
    if os.path.isabs(location) or location.startswith("\\") or windows_drive or ".." in parts:
        raise SourceError(f"external data outside of the model's folder: '{location}'")
    root = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(root / location))
    if not path.is_relative_to(root):
        raise SourceError(
            f"external data outside of the model's folder: '{location}' is a link to '{path}'"
        )
    try:
        links = path.stat().st_nlink
        plain = path.is_file()
    except OSError as error:
        raise SourceError(
            f"the external data file '{location}' cannot be read: {error.strerror}"
        ) from error
    if not plain:
        raise SourceError(f"the external data file '{location}' is not a plain file")
    if links > 1:
        raise SourceError(
            f"the external data file '{location}' has {links} hard links, so it may be "
            "somebody else's file: copy it"
        )
    return path


def _number(entries: dict[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise SourceError(f"external data has the {key} '{text[:40]}', which is no number of bytes")
    return int(text)


def find_not_finite(tensor: ir.TensorProtocol) -> tuple[bool, bool]:
    """Tell whether a tensor holds NaN and whether it holds an infinity.

    A tensor in a file is read in pieces of 8 MiB and not mapped, so memory stays small.

    Args:
        tensor: Any tensor; other types than floating point have neither.

    Returns:
        NaN met, infinity met.
    """
    if not tensor.dtype.is_floating_point() or tensor.dtype.bitwidth < 8:
        return False, False
    nan = infinite = False
    for piece in _pieces(tensor):
        # One sum tells for nearly every piece that all is well, and it is the fastest test;
        # where it overflows, the exact one decides. The types of ml_dtypes have no fast sum.
        if piece.dtype in (np.float32, np.float64):
            with np.errstate(all="ignore"):
                if np.isfinite(piece.sum()):
                    continue
        nan = nan or bool(np.isnan(piece).any())
        infinite = infinite or bool(np.isinf(piece).any())
    return nan, infinite


def _pieces(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    dtype = np.dtype(tensor.dtype.numpy())
    if not isinstance(tensor, ir.ExternalTensor):
        yield np.asarray(tensor.numpy()).reshape(-1)
        return
    left = tensor.nbytes
    with open(tensor.path, "rb", buffering=0) as file:
        file.seek(tensor.offset or 0)
        while left > 0:
            data = file.read(min(_CHUNK, left))
            if not data:
                raise SourceError(f"the data file of tensor '{tensor.name}' is too short")
            whole = len(data) - len(data) % dtype.itemsize
            if whole < len(data):
                file.seek(whole - len(data), os.SEEK_CUR)
            if whole == 0:
                raise SourceError(f"the data file of tensor '{tensor.name}' is too short")
            yield np.frombuffer(data[:whole] if whole < len(data) else data, dtype=dtype)
            left -= whole


def _shape(dims: object) -> str:
    text = ", ".join(str(dim) for dim in list(dims))  # type: ignore[call-overload]
    return f"[{text if len(text) < 200 else text[:200] + '...'}]"
