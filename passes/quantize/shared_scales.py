"""Inputs of a Concat take the scale of its result, so that joining them is copying bytes.

Where an input x and the result y of a Concat have scales of their own, every byte of x is rounded
once more, r_y(r_x(x)). With one scale for both it is rounded once. What x loses is levels for its
other readers, at most by the quotient of the ranges; so an input takes part if

* the Concat is its only reader, behind operators that move data or not, or
* its range is at least half as wide as the common one (one bit),

and if the common range leaves a Relu or Clip in front of the quantizer without effect: a lower end
of 0 stays 0. Concats are looked at from the last one forwards, so that inputs of nested ones see
the range that they get in the end.

Source: ONNX, operator QLinearConcat of ONNX Runtime; Jacob et al. 2018, arXiv:1712.05877, appendix
A.3 (there all inputs are forced).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from qcomp.passes.quantize.static_plan import StaticPlan, activation_bounds
from qcomp.quantization import TensorStatistics

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["share_scales"]

_LEAST_SHARE = 0.5


def share_scales(plan: StaticPlan, statistics: TensorStatistics) -> TensorStatistics:
    """Return the statistics with common ranges at Concats.

    Args:
        plan: Of the graph.
        statistics: Ranges by name.
    """
    source = {node.outputs[0]: node.inputs[0] for node in plan.moves}
    measured = {name for name in plan.measured if name in statistics.ranges}
    ranges = dict(statistics.ranges)
    groups: dict[ir.Value, list[ir.Value]] = {}
    for layer in reversed(plan.layers):
        if layer.node.op_type != "Concat" or layer.output is None:
            continue
        if layer.output.name not in measured:
            continue
        group = groups.setdefault(layer.output, [layer.output])
        for index in layer.activations:
            origin = _origin(layer.node.inputs[index], source)
            if origin.name not in measured or origin in groups:
                continue
            here, there = ranges[origin.name], ranges[layer.output.name]
            low, high = min(here.low, there.low), max(here.high, there.high)
            wide = here.high - here.low >= _LEAST_SHARE * (high - low)
            if not wide and not _reads_alone(layer.node, origin, source):
                continue
            if not all(_bounds_hold(member, low, high) for member in (*group, origin)):
                continue
            group.append(origin)
            groups[origin] = group
            for member in group:
                name = member.name or ""
                ranges[name] = replace(ranges[name], low=low, high=high)
    return replace(statistics, ranges=ranges)


def _origin(value: ir.Value | None, source: Mapping[ir.Value, ir.Value | None]) -> ir.Value:
    """The value that operators moved to where it is read."""
    assert value is not None
    while (moved := source.get(value)) is not None:
        value = moved
    return value


def _reads_alone(
    concat: ir.Node, value: ir.Value, source: Mapping[ir.Value, ir.Value | None]
) -> bool:
    """Whether all that reads a value, behind moves too, is one Concat."""
    if value.is_graph_output():
        return False
    return all(
        usage.node is concat
        or (usage.node.outputs[0] in source and _reads_alone(concat, usage.node.outputs[0], source))
        for usage in value.uses()
    )


def _bounds_hold(value: ir.Value, low: float, high: float) -> bool:
    """Whether a Relu or Clip that makes the value leaves a range as it is."""
    producer = value.producer()
    bounds = None if producer is None else activation_bounds(producer)
    return bounds is None or (min(low, 0.0) >= bounds[0] and max(high, 0.0) <= bounds[1])
