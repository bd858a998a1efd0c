"""What a pass that approximates did to a graph's outputs: measured, and held to its share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.budget import NOISE
from qcomp.equivalence.graphs import random_inputs
from qcomp.errors import QcompError
from qcomp.model_file import model_bytes

if TYPE_CHECKING:
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context, GraphPass

__all__ = ["check_share"]

_ROWS = 16
_LARGEST = 1 << 29
"""Bytes of weights up to which both graphs are run."""

Feeds = Mapping[str, NDArray[np.generic]]


def check_share(instance: GraphPass, before: Program, after: Program, context: Context) -> str:
    """Measure what a pass did to the outputs, enter it in the ledger, and say how.

        max over outputs of  sum |a - b|^2 / sum |a|^2,      a before, b after

    Inputs are the first calibration samples. Made-up ones say little of graphs that were
    calibrated, so that nothing is held to them.

    Args:
        instance: The pass.
        before: The graph it was given.
        after: The graph it made.
        context: Its calibration data and its ledger.

    Raises:
        PassError: It spent more than its share.
    """
    if max(model_bytes(before.model), model_bytes(after.model)) > _LARGEST:
        return f"not measured: more than {_LARGEST >> 20} MiB of weights"
    real = context.calibration is not None
    try:
        feeds = _sample(before, context) if real else random_inputs(before, context.seed)
        spent = _noise(before, after, feeds, context.seed)
    except QcompError as error:
        return f"not measured: {error.what}"
    words = f"{spent:.3g} {NOISE}, at most {instance.error_share:g} was promised"
    if not real:
        return f"{words} (made-up inputs)"
    context.ledger.spend(instance.name, instance.error_share, spent, NOISE, measured=spent)
    return words


def _sample(program: Program, context: Context) -> Feeds:
    assert context.calibration is not None
    feeds = next(iter(context.calibration()), None)
    if feeds is None:
        raise QcompError("the calibration data holds no sample")
    leading = {v.shape[0] for v in program.model.graph.inputs if not v.is_initializer() and v.shape}
    lengths = {array.shape[0] for array in feeds.values() if array.ndim}
    if len(leading) != 1 or len(lengths) != 1:  # no common sample axis
        return feeds
    (first,) = leading
    count = first if isinstance(first, int) else _ROWS
    return {name: a[:count] if a.ndim else a for name, a in feeds.items()}


def _noise(before: Program, after: Program, feeds: Feeds, seed: int) -> float:
    from qcomp.execute import HybridSession

    a, b = (HybridSession(p).run(dict(feeds), seed=seed, shots=0) for p in (before, after))
    worst = 0.0
    for name, value in a.items():
        x, y = np.asarray(value), np.asarray(b.get(name))
        if not np.issubdtype(x.dtype, np.floating):
            continue
        if x.shape != y.shape or not np.issubdtype(y.dtype, np.floating):
            raise QcompError(f"the output '{name}' has another type or shape")
        x, y = x.astype(np.float64), y.astype(np.float64)
        finite = np.isfinite(x)
        off = float(np.square(x - y, where=finite, out=np.zeros_like(x)).sum())
        scale = float(np.square(x, where=finite, out=np.zeros_like(x)).sum())
        worst = max(worst, off / scale if scale else float(off > 0))
        if np.isnan(off):
            return float("inf")
    return worst
