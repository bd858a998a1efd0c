"""A captured quantum layer beside its original, on random inputs and weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qcomp.errors import QcompError, SourceError
from qcomp.ir.program import Comparison

__all__ = ["LIMITS", "Arguments", "Call", "check_capture", "compare"]

LIMITS = {torch.float64: 1e-9, torch.float32: 5e-6}
"""dtype that both run in -> the largest difference, relative to max(1, |value|)."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Call = Callable[..., Any]


def check_capture(
    where: str,
    layer: torch.nn.Module,
    replacement: Any,  # noqa: ANN401  a module, or a function with the same attributes
    capture: Callable[[torch.nn.Module, tuple[Any, ...], dict[str, Any]], Any],
    calls: list[Arguments],
) -> Comparison:
    """Compare what a layer and its capture give.

    First on the example inputs as they are; then, in float64 where the layer runs in it, on inputs
    drawn from the range of the examples, on inputs from [-pi, pi] with other weights, and with one
    row more than the examples have. The structure must not change with inputs and weights.

    Args:
        where: What messages call the layer.
        layer: The original; its weights are back in their places afterwards.
        replacement: Its capture.
        capture: Its capturer, asked again with other inputs.
        calls: The arguments that the layer was called with.

    Raises:
        SourceError: If the two differ by more than ``LIMITS``, or the structure changes.
    """
    random = torch.Generator().manual_seed(0)
    worst: dict[torch.dtype, float] = {}
    rows = 0

    def look(
        plan: Arguments, *, double: bool = True, must: bool = False, more: bool = False
    ) -> None:
        nonlocal rows
        values = _both(layer, replacement, plan, double=double, must=must, longer=more, where=where)
        if values is not None:
            rows += _rows(plan)
            for dtype, difference in compare(*values, where=where).items():
                worst[dtype] = max(worst.get(dtype, 0.0), difference)

    for call in calls:
        look(call, double=False, must=True)
        look(_drawn(call, random, wide=False))
        wide = _drawn(call, random, wide=True)
        with _other_weights(layer, random):
            look(wide)
            if hasattr(replacement, "structure"):
                _same_structure(replacement, layer, capture, wide, where)
        longer = _one_row_more(call)
        if longer is not None:
            look(longer, more=True)
    errors = ((str(dtype).removeprefix("torch."), error) for dtype, error in worst.items())
    return Comparison(where, rows, tuple(sorted(errors)))


def compare(original: object, captured: object, *, where: str = "") -> dict[torch.dtype, float]:
    """Return the largest difference of two results, by the dtype that they were computed in.

    ``|captured - original| / max(1, |original|)``. Values that float32 can hold count as computed
    in float32, whatever the dtype of their tensor. Where both are NaN they agree.

    Args:
        original: A tensor, or tensors in tuples, lists and dicts.
        captured: The same of the capture.
        where: The layer, for messages.

    Raises:
        SourceError: If the shapes differ, or a difference is beyond its limit.
    """
    theirs = [torch.as_tensor(value) for value in pytree.tree_leaves(original)]
    ours = [torch.as_tensor(value) for value in pytree.tree_leaves(captured)]
    if [value.shape for value in theirs] != [value.shape for value in ours]:
        raise SourceError(
            f"the captured layer gives shapes {[list(v.shape) for v in ours]}, the original "
            f"{[list(v.shape) for v in theirs]}",
            where=where,
        )
    worst: dict[torch.dtype, float] = {}
    for want, got in zip(theirs, ours, strict=True):
        if not want.numel():
            continue
        dtype = torch.float64 if _is_double(want) and _is_double(got) else torch.float32
        want, got = want.double(), got.double()
        difference = (got - want).abs() / want.abs().clamp(min=1)
        difference[(want.isnan() & got.isnan()) | (want == got)] = 0.0
        largest = float(difference.nan_to_num(nan=math.inf).max())
        worst[dtype] = max(worst.get(dtype, 0.0), largest)
        if largest > LIMITS[dtype]:
            raise SourceError(
                f"the captured layer differs from the original by {largest:.2g}",
                where=where,
                why=f"the limit in {str(dtype).removeprefix('torch.')} is {LIMITS[dtype]:g}, "
                "relative to max(1, |value|)",
                hint="a layer whose circuit depends on its data, or that keeps a state between "
                "calls, cannot be captured",
            )
    return worst


def _is_double(values: torch.Tensor) -> bool:
    """Whether values were computed in float64: some of them float32 cannot hold."""
    return values.dtype == torch.float64 and not torch.equal(
        values.nan_to_num(), values.nan_to_num().float().double()
    )


def _both(
    layer: torch.nn.Module,
    replacement: Any,  # noqa: ANN401
    call: Arguments,
    *,
    double: bool,
    must: bool,
    longer: bool,
    where: str,
) -> tuple[object, object] | None:
    """Return the results of original and capture; None where the original takes no such input.

    A capture that does not take one row more is a layer of a fixed batch, which is no fault.
    """
    original: Call = getattr(replacement, "reference", layer)
    for widen in (True, False) if double else (False,):
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if hasattr(replacement, "exact"):
                stack.enter_context(replacement.exact())
            args, kwargs = call
            if widen:
                stack.enter_context(_doubled(layer))
                args, kwargs = pytree.tree_map(_doubled_value, call)
            try:
                want = original(*args, **kwargs)
            except Exception as error:  # a layer's own code: that it runs is known of examples
                if must:
                    raise _failed(error, where) from error
                continue
            try:
                return want, replacement(*args, **kwargs)
            except Exception as error:
                if not widen and not longer:
                    raise _failed(error, where) from error
    return None


def _failed(error: Exception, where: str) -> QcompError:
    if isinstance(error, QcompError):
        return error
    return SourceError(
        "the original layer or its capture does not run",
        where=where,
        why=f"{type(error).__name__}: {str(error).strip()[:300]}",
    )


def _same_structure(
    replacement: Any,  # noqa: ANN401
    layer: torch.nn.Module,
    capture: Callable[..., Any],
    call: Arguments,
    where: str,
) -> None:
    again = capture(layer, *call)
    if again.structure != replacement.structure:
        raise SourceError(
            "the circuit's structure depends on data",
            where=where,
            why=_first_difference(str(replacement.structure), str(again.structure)),
            hint="let the data choose angles, not gates: a rotation by 0 is no gate",
        )


def _first_difference(first: str, second: str) -> str:
    a, b = first.splitlines(), second.splitlines()
    for number, (left, right) in enumerate(zip(a, b, strict=False), 1):
        if left != right:
            return (
                f"line {number} of the circuit is '{left}' with one input, '{right}' with another"
            )
    return f"it has {len(a)} lines here and {len(b)} there"


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _doubled_value(value: Any) -> Any:  # noqa: ANN401  any argument
    return value.double() if _is_float(value) else value


def _rows(call: Arguments) -> int:
    """Return the rows of a call: the product of the first tensor's axes but the last."""
    tensors = [v for v in pytree.tree_leaves(call) if isinstance(v, torch.Tensor)]
    return math.prod(tensors[0].shape[:-1]) if tensors and tensors[0].dim() else 1


def _drawn(call: Arguments, random: torch.Generator, *, wide: bool) -> Arguments:
    """Return a call with its floats drawn: from [-pi, pi], or from the range that they have."""

    def draw(value: Any) -> Any:  # noqa: ANN401  any argument
        if not _is_float(value) or not value.numel():
            return value
        low, high = (-math.pi, math.pi) if wide else (float(value.min()), float(value.max()))
        if low == high:
            low, high = low - 0.5, high + 0.5
        unit = torch.rand(value.shape, generator=random, dtype=torch.float64)
        return (low + (high - low) * unit).to(value.device, value.dtype)

    drawn: Arguments = pytree.tree_map(draw, call)
    return drawn


def _one_row_more(call: Arguments) -> Arguments | None:
    """Return a call with the first row of its matrices once more; None if it has no batch."""
    tensors = [v for v in pytree.tree_leaves(call) if isinstance(v, torch.Tensor)]
    if not tensors or any(t.dim() < 2 or len(t) != len(tensors[0]) for t in tensors):
        return None
    longer: Arguments = pytree.tree_map(
        lambda v: torch.cat([v, v[:1]]) if isinstance(v, torch.Tensor) else v, call
    )
    return longer


@contextlib.contextmanager
def _with_data(layer: torch.nn.Module, change: Callable[[torch.Tensor], Any]) -> Iterator[None]:
    """Give the layer's weights and buffers other data, and their own back afterwards."""
    tensors = [t for t in (*layer.parameters(), *layer.buffers()) if t.is_floating_point()]
    kept = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = change(tensor.data)
        yield
    finally:
        for tensor, data in zip(tensors, kept, strict=True):
            tensor.data = data


def _doubled(layer: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    return _with_data(layer, lambda data: data.double())


def _other_weights(
    layer: torch.nn.Module, random: torch.Generator
) -> contextlib.AbstractContextManager[None]:
    def moved(data: torch.Tensor) -> torch.Tensor:
        step = torch.rand(data.shape, generator=random, dtype=torch.float64) * 2 - 1
        return (data.double() + step.to(data.device)).to(data.dtype)

    return _with_data(layer, moved)
