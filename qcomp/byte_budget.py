"""``--max-bytes``: how large the compiled graph may be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qcomp.errors import UsageError

__all__ = ["ByteBudget", "TensorBudget"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}
_TEXT = re.compile(r"(?P<number>\d+(\.\d+)?|\.\d+)\s*(?P<unit>[a-z]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """The most bytes of a graph's file.

    Attributes:
        bytes: At least 1.
    """

    bytes: int

    @staticmethod
    def parse(value: object) -> ByteBudget:
        """Read a number of bytes, or a text such as ``2MB`` or ``1.5 MiB``.

        Raises:
            UsageError: If it is neither.
        """
        found = _TEXT.fullmatch(str(value).strip())
        unit = None if found is None else _UNITS.get(found["unit"].lower())
        if isinstance(value, bool) or found is None or unit is None:
            raise UsageError(f"'{value}' is no number of bytes", hint="2MB, 1.5MiB or 2000000")
        size = int(float(found["number"]) * unit)
        if size < 1:
            raise UsageError(f"'{value}' is less than a byte", hint="2MB")
        return ByteBudget(size)

    def __str__(self) -> str:
        """Return the bytes with thousands apart."""
        return f"{self.bytes:,} bytes"


@dataclass(frozen=True, slots=True)
class TensorBudget:
    """What ``allocate-bits`` has to keep to, in place of its own options.

    Attributes:
        bytes: Of all tensors that have a choice.
    """

    bytes: int
