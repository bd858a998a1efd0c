"""The integer types a quantizer may use, with their closed ranges.

Range logic lives here once: everything else asks the type for its ``min``, ``max``, storage
and ONNX data type.

| type    | range         | stored in | used for                                     |
|---------|---------------|-----------|----------------------------------------------|
| UINT8   | [0, 255]      | uint8     | activations                                  |
| INT8    | [-127, 127]   | int8      | symmetric weights (narrow: -128 is not used) |
| INT7    | [-63, 63]     | int8      | weights on processors without VNNI           |
| UINT4   | [0, 15]       | uint8     | asymmetric 4-bit weights                     |
| INT4    | [-8, 7]       | int8      | 4-bit weights in blocks                      |
| INT4_NARROW | [-7, 7]   | int8      | 4-bit weights with a scale an output channel |
| UINT16  | [0, 65535]    | uint16    | activations of machines that take 16 bits    |
| INT16   | [-32768, 32767] | int16   | the same, symmetric                          |
| INT32   | [-2^31, 2^31-1] | int32   | bias and accumulator                         |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir

__all__ = [
    "INT4",
    "INT7",
    "INT8",
    "INT8_FULL",
    "INT16",
    "INT32",
    "INT4_NARROW",
    "UINT4",
    "UINT8",
    "UINT16",
    "IntegerType",
]


@dataclass(frozen=True, slots=True)
class IntegerType:
    """An integer type of a quantized tensor.

    Attributes:
        bits: Number of bits a value needs, 2 to 32.
        signed: Whether negative values exist.
        narrow: Whether the lowest signed value is left out, so that the range is symmetric.
    """

    bits: int
    signed: bool
    narrow: bool = False

    @property
    def name(self) -> str:
        """Short name, as ``s8`` or ``u4``."""
        return f"{'s' if self.signed else 'u'}{self.bits}"

    @property
    def min(self) -> int:
        """Lowest value of the closed range."""
        return -(1 << (self.bits - 1)) + int(self.narrow) if self.signed else 0

    @property
    def max(self) -> int:
        """Highest value of the closed range."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def levels(self) -> int:
        """Number of steps between the lowest and the highest value."""
        return self.max - self.min

    @property
    def storage(self) -> np.dtype[np.generic]:
        """NumPy type that holds one unpacked value."""
        size = 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32
        return np.dtype(f"{'int' if self.signed else 'uint'}{size}")

    @property
    def onnx(self) -> onnx_ir.DataType:
        """The ONNX data type that stores it: 4 bits are packed, 5 to 8 bits take a byte."""
        import onnx_ir

        size = next(size for size in (4, 8, 16, 32) if self.bits <= size)
        return onnx_ir.DataType[f"{'INT' if self.signed else 'UINT'}{size}"]


UINT8 = IntegerType(8, signed=False)
INT8 = IntegerType(8, signed=True, narrow=True)
INT8_FULL = IntegerType(8, signed=True)
INT7 = IntegerType(7, signed=True, narrow=True)
UINT16 = IntegerType(16, signed=False)
INT16 = IntegerType(16, signed=True)
UINT4 = IntegerType(4, signed=False)
INT4 = IntegerType(4, signed=True)
INT4_NARROW = IntegerType(4, signed=True, narrow=True)
INT32 = IntegerType(32, signed=True)
