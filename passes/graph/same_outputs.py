"""Whether a rewritten program still computes what it did: both are run on a few samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qcomp.errors import PassError, QcompError
from qcomp.passes.calibrate.batches import checked_batches, generated_batch

if TYPE_CHECKING:
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context

__all__ = ["check_same_outputs"]

_ABSOLUTE, _RELATIVE = 1e-4, 1e-5
_SAMPLES = 4


def check_same_outputs(
    name: str, before: Program, after: Program, context: Context, hint: str
) -> None:
    """Compare the outputs of both, on calibration data or, where there is none, made-up data.

    Args:
        name: Of the pass that rewrote it.
        before: The program as it was.
        after: As it is now.
        context: Has the calibration data.
        hint: What to do about a difference.

    Raises:
        PassError: They differ by more than rounding.
    """
    from qcomp.execute import HybridSession

    try:
        if context.calibration is not None:
            feeds = next(checked_batches(before.model, context.calibration(), _SAMPLES))
        else:
            rng = context.rng("rotate.check")
            feeds = generated_batch(before.model, rng, _SAMPLES)
        wanted = HybridSession(before).run(feeds, seed=context.seed)
    except QcompError as reason:
        if context.calibration is not None:
            raise
        context.warn(f"{name}: the outputs were not compared: {reason.what}")
        return
    got = HybridSession(after).run(feeds, seed=context.seed)
    for output, value in wanted.items():
        reference = np.asarray(value)
        if not np.issubdtype(reference.dtype, np.floating) or not np.isfinite(reference).all():
            continue
        difference = float(np.abs(np.asarray(got[output], np.float64) - reference).max(initial=0.0))
        largest = float(np.abs(reference).max(initial=0.0))
        if not difference <= max(_ABSOLUTE, _RELATIVE * largest):
            raise PassError(
                f"{name}: the output '{output}' changed by {difference:.2g}, its largest value is"
                f" {largest:.3g}",
                why=f"rounding may do {_ABSOLUTE:g}, or {_RELATIVE:g} of the largest value",
                hint=hint,
            )
