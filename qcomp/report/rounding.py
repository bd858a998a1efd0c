"""What error feedback did to each layer, in the words of the report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qcomp.report.data import CheckLine

if TYPE_CHECKING:
    from qcomp.quantization import (
        ChosenWeights,
        FeedbackError,
        FeedbackErrors,
        QuantizationRecord,
    )

__all__ = ["not_stored", "rounding_check", "rounding_words"]


def rounding_words(errors: FeedbackErrors | None) -> dict[str, str]:
    """Layer -> what its integers were chosen by, and what that left of the output error."""
    if errors is None:
        return {}
    return {error.node: _words(error) for error in errors.layers}


def _words(error: FeedbackError) -> str:
    if not error.tried:
        share = error.left / error.rounded if error.rounded > 0 else 1.0
        return (
            f"error feedback leaves {share:.3g} of the output error of rounding to nearest, which "
            f"{error.kept} of {error.channels} channels keep"
        )
    order = sorted(error.tried, key=lambda method: error.tried[method])
    best, *rest = (f"{method} {_decibels(error, method)}" for method in order)
    text = f"the least output error of {len(order)} methods: {best}"
    text += f" ({', '.join(rest)})" if rest else ""
    if error.left_out:
        text += f"; the budget had no work for {', '.join(error.left_out)}"
    return text


def _decibels(error: FeedbackError, method: str) -> str:
    noise = error.tried[method]
    if noise <= 0 or error.total <= 0:  # it takes back more than rounding costs
        return "without loss"
    return f"{10 * math.log10(error.total / noise):.1f} dB"


def not_stored(chosen: ChosenWeights | None, record: QuantizationRecord | None) -> list[str]:
    """What to tell a user whose pipeline chooses integers and stores none."""
    weights = {} if chosen is None else chosen.weights
    layers = () if record is None else record.layers
    if not weights or any(layer.weight in weights for layer in layers):
        return []
    method = next(iter(weights.values())).method.partition("{")[0]
    return [
        f"{method} chose integers for {len(weights)} weights and no pass stored them: "
        "'quantize-weights' or another quantizing pass has to come behind"
    ]


def rounding_check(
    errors: FeedbackErrors | None, record: QuantizationRecord | None
) -> list[CheckLine]:
    """The count behind 'never worse than rounding'; empty where nothing was rounded so."""
    if errors is None or record is None:
        return []
    stored = {layer.node for layer in record.layers}
    layers = [error for error in errors.layers if error.node in stored]
    if not layers:
        return []
    worse = sum(error.left > error.rounded for error in layers)
    kept = sum(error.kept for error in layers)
    channels = sum(error.channels for error in layers)
    how = (
        f"{errors.method}: {worse} of {len(layers)} layers above; {kept} of {channels} "
        "output channels keep rounding to nearest, which was better there"
    )
    what = "no layer's output error on the calibration data is above that of rounding to nearest"
    return [CheckLine(what, how, "failed" if worse else "proved")]
