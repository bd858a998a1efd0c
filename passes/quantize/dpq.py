"""Integers of 4 bits for a machine that multiplies 8-bit floats: both roundings in one feedback.

    W ~ S (q - z) 2^k,     S a channel's, k and z a group's, (q - z) 2^k a member of E4M3 exactly

(:mod:`qcomp.passes.quantize.float8`). A kernel unpacks q, shifts it by k and has the 8-bit float
that it multiplies; nothing is rounded a second time. So the error that is fed into the columns to
come, e_i = (w_i - q_i) / U_ii, is the error of both roundings. Columns go by activation order with
the grids of all groups fitted before (``gptq{order=activation}``).

Preconditions: calibration data; ``quantize-fp8`` behind it stores them.
Preserved: everything; the graph does not change.
Cost: that of ``gptq``, and sixteen roundings of the weights for the grids.
Source: Gafni et al. 2025, arXiv:2505.14638 (DPQ), of which the abstract was at hand: INT4 storage,
FP8 compute, an error feedback for the two. Ours: scales of groups that are powers of two, so that
the second rounding is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from qcomp.errors import UsageError
from qcomp.passes.quantize.float8 import Float8Grid
from qcomp.passes.quantize.gptq import Gptq
from qcomp.passes.quantize.grids import Grid

__all__ = ["Dpq"]


@dataclass(frozen=True)
class Dpq(Gptq):
    """Round weights to 4 bits that are 8-bit floats exactly, with error feedback (DPQ).

    Attributes:
        order: ``activation``: grids are fitted before the first column is rounded.
        refits: 0: other scales would be no powers of two apart.
    """

    name: ClassVar[str] = "dpq"

    order: Literal["natural", "activation"] = "activation"
    refits: int = 0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if self.order != "activation" or self.refits:
            raise UsageError(
                "dpq: scales of groups are a channel's times powers of two, and stay",
                hint="order=activation and refits=0",
            )
        if self.scheme != "weights":
            raise UsageError("dpq: 8-bit floats are no integers", hint="leave 'scheme' out")

    def _grid(self, bits: int | None = None, group: int | None = None) -> Grid:
        bits = self.bits if bits is None else bits
        group = self.group if group is None else group
        return Float8Grid(bits, group, self.symmetric, self.fit, positive=True)
