"""Values and how far shots may have put them off: the standard error of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.program import Readout

if TYPE_CHECKING:
    from qcomp.mitigation.grouping import Group

__all__ = ["Estimate", "estimate", "grouped_errors"]

Array = NDArray[np.generic]
Errors = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a device gives back for one readout.

    Attributes:
        values: The array [B, ...] that :class:`~qcomp.ir.program.Readout` describes.
        errors: The standard error of each value, float64 of the same shape: 0 where values are
            exact; None where there is none, as of single samples, or nobody knows it, as of
            extrapolated values.
    """

    values: Array
    errors: Errors | None


def estimate(readout: Readout, values: Array, shots: int, errors: Errors | None = None) -> Estimate:
    """Return values with the errors that follow from the readout alone.

    Frequencies of a multinomial have ``sqrt(p (1 - p) / shots)``; p itself is estimated, so a
    frequency of 0 or 1 has the error of half a count more.

    Args:
        readout: What was read out.
        values: The values.
        shots: Shots of each row; 0 where the values are exact.
        errors: Errors of sampled expectation values, where they are known.
    """
    if readout.kind in ("bits", "samples"):
        return Estimate(values, None)
    if not shots:
        return Estimate(values, np.zeros(values.shape))
    if readout.kind == "probs":
        p = np.asarray(values, dtype=np.float64)
        p = np.clip(p, 0.5 / shots, 1 - 0.5 / shots)
        return Estimate(values, np.sqrt(p * (1 - p) / shots))
    return Estimate(values, errors)


def grouped_errors(
    groups: Sequence[Group], bits: Sequence[NDArray[np.uint8]], count: int
) -> Errors:
    """Return standard errors of observables whose products were measured in groups, float64[B, K].

    Products of a group share their shots, so their covariances count; groups are independent.

    Args:
        groups: The groups.
        bits: For each group uint8[B, shots, m], a column for each of the group's qubits.
        count: The number of observables.
    """
    rows = len(bits[0]) if bits else 0
    variance = np.zeros((rows, count))
    for group, found in zip(groups, bits, strict=True):
        column = {q: j for j, q in enumerate(group.qubits)}
        reads = np.zeros((found.shape[-1], len(group.words)), dtype=np.float32)
        for w, read in enumerate(group.reads):
            reads[[column[q] for q in read], w] = 1
        weight = np.zeros((len(group.words), count))
        for k, coefficient, w in group.terms:
            weight[w, k] += coefficient * group.signs[w]
        for b, own in enumerate(found):  # the values of one row's shots are in memory at a time
            per_shot = (1.0 - 2.0 * ((own.astype(np.float32) @ reads) % 2)) @ weight
            variance[b] += per_shot.var(axis=0, ddof=min(1, len(own) - 1)) / len(own)
    return np.sqrt(variance)
