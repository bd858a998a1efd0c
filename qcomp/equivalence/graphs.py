"""Graphs and hybrid programs, compared by running both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.verdict import Verdict
from qcomp.errors import QcompError
from qcomp.ir.program import Program

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_programs", "random_inputs"]

RELATIVE = 1e-4
"""Largest difference, over the largest reference value, that float32 rounding may make."""

BATCH = 2
"""Length given to dimensions that the graph leaves open."""

Arrays = dict[str, NDArray[np.generic]]


def check_programs(
    a: Program,
    b: Program,
    seed: int = 0,
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
) -> Verdict:
    """Run both programs on the same inputs and compare the outputs.

    Equal means: every output of the same type and shape, whole numbers and NaN in the same places,
    floats within 1e-4 of the largest value of the reference. Circuits are run exactly.

    Args:
        a: The reference.
        b: The candidate.
        seed: Seed of generated inputs.
        inputs: Name -> array; generated from the types and shapes of the reference when None.

    Returns:
        The verdict; ``detail`` maps each output to its ``max_abs`` difference and ``sqnr_db``.
    """
    from qcomp.execute import HybridSession

    source = "given inputs" if inputs is not None else "random inputs"
    names = [_names(program) for program in (a, b)]
    if names[0] != names[1]:
        return Verdict(False, f"inputs and outputs: {names[0]} against {names[1]}", float("inf"))
    try:
        feeds = dict(inputs) if inputs is not None else random_inputs(a, seed)
        first = HybridSession(a).run(feeds, shots=0)
    except QcompError as reason:
        return Verdict(
            None, f"not checked: the reference does not run: {reason.what}", float("nan")
        )
    try:
        second = HybridSession(b).run(feeds, shots=0)
    except QcompError as reason:
        return Verdict(False, f"the candidate does not run: {reason.what}", float("inf"))
    detail: dict[str, object] = {}
    error, equal = 0.0, True
    for name, reference in first.items():
        difference, same, sqnr = compare(reference, second[name])
        detail[name] = {"max_abs": difference, "sqnr_db": sqnr}
        error, equal = max(error, difference), equal and same
    return Verdict(equal, f"outputs on {source}, {len(first)} in all", error, 0.0, detail)


def _names(program: Program) -> tuple[tuple[str, ...], tuple[str, ...]]:
    graph = program.model.graph
    return (
        tuple(value.name or "" for value in graph.inputs if not value.is_initializer()),
        tuple(value.name or "" for value in graph.outputs),
    )


def compare(reference: object, candidate: object) -> tuple[float, bool, float]:
    """Return (largest difference, whether it is rounding at most, SQNR in dB) of one output."""
    if isinstance(reference, list | tuple) or isinstance(candidate, list | tuple):
        return _compare_sequences(reference, candidate)
    if reference is None or candidate is None:
        same = reference is candidate
        return (0.0 if same else float("inf")), same, float("inf") if same else 0.0
    a, b = np.asarray(reference), np.asarray(candidate)
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf"), False, float("-inf")
    if a.dtype.kind not in "fciub":
        same = bool(np.array_equal(a, b))
        return (0.0 if same else float("inf")), same, float("inf") if same else float("-inf")
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    # What is not finite has to be the same value in the same place.
    odd = ~np.isfinite(x) | ~np.isfinite(y)
    if not np.array_equal(x[odd], y[odd], equal_nan=True):
        return float("inf"), False, float("-inf")
    noise = np.abs(x[~odd] - y[~odd])
    largest = float(noise.max(initial=0.0))
    signal = np.abs(x[~odd])
    power = float((noise**2).sum())
    sqnr = float("inf") if power == 0 else float(10 * np.log10((signal**2).sum() / power + 1e-300))
    limit = RELATIVE * max(float(signal.max(initial=0.0)), 1e-6) if a.dtype.kind in "fc" else 0.0
    return largest, largest <= limit, sqnr


def _compare_sequences(reference: object, candidate: object) -> tuple[float, bool, float]:
    if not (isinstance(reference, list | tuple) and isinstance(candidate, list | tuple)):
        return float("inf"), False, float("-inf")
    if len(reference) != len(candidate):
        return float("inf"), False, float("-inf")
    parts = [compare(x, y) for x, y in zip(reference, candidate, strict=True)]
    return (
        max((part[0] for part in parts), default=0.0),
        all(part[1] for part in parts),
        min((part[2] for part in parts), default=float("inf")),
    )


def random_inputs(program: Program, seed: int = 0) -> Arrays:
    """Return inputs for a program: normal floats, small whole numbers, both truth values.

    Open dimensions are 2, those of one name alike.

    Args:
        program: The program.
        seed: Seed of the values.

    Raises:
        QcompError: If an input is no tensor, or has no known rank.
    """
    rng = np.random.default_rng(seed)
    feeds: Arrays = {}
    for value in program.model.graph.inputs:
        if not value.is_initializer():
            feeds[value.name or ""] = _random(value, rng)
    return feeds


def _random(value: ir.Value, rng: np.random.Generator) -> NDArray[np.generic]:
    if value.shape is None or value.dtype is None:
        raise QcompError(
            f"the input '{value.name}' is no tensor of known rank",
            hint="give inputs to compare with",
        )
    shape = tuple(int(d) if isinstance(d, int) else BATCH for d in value.shape)
    dtype = value.dtype.numpy()
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 3, shape).astype(dtype)
    if dtype.kind not in "fcV":
        raise QcompError(
            f"the input '{value.name}' has the type {dtype}", hint="give inputs to compare with"
        )
    return rng.standard_normal(shape).astype(dtype)
