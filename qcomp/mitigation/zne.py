"""Zero-noise extrapolation of a circuit: fold, run, extrapolate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.mitigation.extrapolation import CANDIDATES, Extrapolation, Method, extrapolate
from qcomp.mitigation.folding import FoldMethod, fold, fold_scale

__all__ = ["zero_noise"]


def zero_noise(
    circuit: Circuit,
    execute: Callable[[Circuit], ArrayLike],
    *,
    scales: Sequence[float] = (1, 3, 5),
    folding: FoldMethod = "global",
    method: Method = "auto",
    degree: int = 2,
    asymptote: float | ArrayLike | None = None,
    candidates: Sequence[Method] = CANDIDATES,
    seed: int = 0,
) -> Extrapolation:
    """Return what a noisy machine's values would be without noise.

    Args:
        circuit: The circuit as the machine runs it: mapped, in its basis, reduced.
        execute: Runs a circuit and returns values, float64[...], such as expectation values of
            several observables for several rows of parameters. Called once a scale.
        scales: Noise scales; what :func:`~qcomp.mitigation.folding.fold_scale` says of them is
            extrapolated. Odd ones fold every gate equally and give smooth curves.
        folding: ``global``, ``local`` or ``two-qubit``.
        method: A model, or ``auto``; see :func:`~qcomp.mitigation.extrapolation.extrapolate`.
        degree: Degree of ``polynomial``.
        asymptote: The value at infinite noise where it is known.
        candidates: What ``auto`` chooses among.
        seed: Seed of a network's training.

    Raises:
        UsageError: If scales are out of range, or too few gates make two of them the same.
    """
    real = [fold_scale(circuit, scale, folding) for scale in scales]
    if len(set(real)) < len(real):
        raise UsageError(
            f"the circuit '{circuit.name}' has too few gates for the noise scales {list(scales)}",
            why=f"folding gives {real}",
            hint="give odd scales: 1, 3, 5; or another way of folding",
        )
    values = [np.asarray(execute(fold(circuit, s, folding)), np.float64) for s in scales]
    return extrapolate(
        real,
        np.stack(values, axis=-1),
        method,
        degree=degree,
        asymptote=asymptote,
        candidates=candidates,
        seed=seed,
    )
