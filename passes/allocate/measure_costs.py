"""What every way to store a tensor costs beside bytes: bit operations, and CPU time where asked.

    operations(l, b) = multiplications of a sample * b * 8

is exact; activations have 8 bits inside of the kernels of products and convolutions alike. CPU time
is looked at where the user limits it (``--max-latency-ratio``): every operator with the shapes of
one calibration sample runs alone in all forms that its choices have
(:mod:`qcomp.passes.allocate.operator_times`), and the source as a whole. Bits of a convolution
change bytes and not time: its kernel has integers of 8 bits, whatever the file has.

A table of a file takes the place of measurement, so that the same bytes come out anywhere; of the
one that comes with the target, the nearest shape. What was measured is kept in a file.

Preconditions: ``measure-sensitivity`` or another pass that leaves Sensitivities; calibration data.
Preserved: everything; leaves a :class:`qcomp.way_costs.WayCosts` fact.
Cost: one run of a sample; where time is asked, some milliseconds for each form and shape.
Source: bit operations and measured latency as costs, Yao et al. 2021 (HAWQ-V3), arXiv:2011.10680,
section 3.4; additive tables of latencies, Cai et al. 2019 (ProxylessNAS), arXiv:1812.00332.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.errors import QcompError, UsageError
from qcomp.execute import HybridSession
from qcomp.layer_store import model_digest
from qcomp.passes.allocate.operator_times import (
    FLOAT,
    INTEGERS,
    Array,
    Operation,
    measured,
    turns_of,
)
from qcomp.passes.allocate.storage import Form
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.layer_rows import layer_geometry
from qcomp.passes.graph.rewriting import constant_tensor, int_attribute, node_label
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.sensitivity import BitChoice, Sensitivities, TensorSensitivity
from qcomp.way_costs import LatencyBudget, LatencyTable, WayCosts, machine_name

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["MeasureCosts"]

_ACTIVATIONS = 8
_STORED = (2, 4, 8)
"""Bits that MatMulNBits has."""


@dataclass(frozen=True)
class MeasureCosts(GraphPass):
    """Count bit operations of every choice, and time them where latency is limited.

    Attributes:
        form: How ``quantize-weights`` will store products: ``matmulnbits`` or ``int8``.
    """

    name: ClassVar[str] = "measure-costs"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    form: Form = "matmulnbits"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: Another form.
        """
        if self.form not in ("matmulnbits", "int8", "static"):
            raise UsageError(
                f"{self.name}: form is '{self.form}'", hint="'matmulnbits', 'int8' or 'static'"
            )

    def run(self, program: Program, context: Context) -> bool:
        """Count and measure; the program stays as it is.

        Raises:
            UsageError: A given table has no time for an operator.
        """
        table = context.get(Sensitivities)
        if table is None or not table.tensors or context.calibration is None:
            return False
        sample = next(checked_batches(program.model, context.calibration(), 1))
        found = _operations(program, table.tensors, sample)
        operations = {
            tensor.weight: tuple(
                float(sum(op.multiplications for op in found[tensor.weight]))
                * choice.bits
                * _ACTIVATIONS
                for choice in tensor.choices
            )
            for tensor in table.tensors
        }
        budget = context.get(LatencyBudget)
        if budget is None:
            context.put(WayCosts(operations))
            return False
        forms = {
            tensor.weight: [
                [replace(op, form=self._form(choice)) for op in found[tensor.weight]]
                for choice in tensor.choices
            ]
            for tensor in table.tensors
        }
        times = _Times(program, sample, budget, context)
        asked = [op for rows in forms.values() for row in rows for op in row]
        times.find([op for row in found.values() for op in row], asked)
        context.put(
            WayCosts(
                operations,
                {name: tuple(map(times.total, rows)) for name, rows in forms.items()},
                {name: times.total(row) for name, row in found.items()},
                times.whole,
                times.machine,
            )
        )
        return False

    def _form(self, choice: BitChoice) -> str:
        """How an operator runs with a choice of its tensor."""
        if choice.group and self.form == "matmulnbits":
            return f"{next(bits for bits in _STORED if bits >= choice.bits)}/{choice.group}"
        return INTEGERS


def _operations(
    program: Program, tensors: Sequence[TensorSensitivity], sample: Mapping[str, Array]
) -> dict[str, list[Operation]]:
    """The operators of each tensor, with the shapes of a sample; tables have none."""
    wanted = {name for tensor in tensors for name in tensor.nodes}
    nodes = {
        node_label(n): n
        for n in program.model.graph
        if node_label(n) in wanted and n.op_type not in ("Gather", "GatherND")
    }
    reads = {name: value.name or "" for name, n in nodes.items() if (value := n.inputs[0])}
    made = [name for name in dict.fromkeys(reads.values()) if name not in sample]
    values = HybridSession(program, taps=made).run(dict(sample), shots=0) if made else {}
    shapes = {name: np.shape(value) for name, value in {**sample, **values}.items()}
    return {
        tensor.weight: [
            _operation(nodes[name], shapes[reads[name]]) for name in tensor.nodes if name in nodes
        ]
        for tensor in tensors
    }


def _operation(node: ir.Node, shape: tuple[int, ...]) -> Operation:
    tensor = constant_tensor(node.inputs[1])
    assert tensor is not None
    weight = tuple(int(n) for n in tensor.shape.numpy())
    if node.op_type != "Conv":
        turned = node.op_type == "Gemm" and int_attribute(node, "transB")
        k, n = reversed(weight) if turned else weight
        return Operation("MatMul", (math.prod(shape) // k, k), (k, n))
    geometry = layer_geometry(node, weight)
    begins, ends = zip(*geometry.padding(shape[2:]), strict=True)
    options = (
        ("strides", geometry.strides),
        ("dilations", geometry.dilations),
        ("pads", (*begins, *ends)),
        ("group", (geometry.group,)),
    )
    return Operation("Conv", shape, weight, FLOAT, options)


class _Times:
    """Times of operators and of the source: given, kept from an earlier compile, or measured.

    Args:
        program: The source, in float.
        sample: What it runs on.
        budget: Of the user.
        context: Where progress is shown.

    Attributes:
        machine: Where they come from.
        whole: Seconds of the source.
    """

    def __init__(
        self, program: Program, sample: Mapping[str, Array], budget: LatencyBudget, context: Context
    ) -> None:
        self._program, self._sample = program, dict(sample)
        self._budget, self._context = budget, context
        self._seconds: dict[str, float] = {}
        self.machine = machine_name() if budget.table is None else budget.table.machine
        self.whole = 0.0

    def total(self, operations: Sequence[Operation]) -> float:
        """Return the seconds of operations one after another."""
        return sum(self._seconds[str(operation)] for operation in operations)

    def find(self, real: Sequence[Operation], asked: Sequence[Operation]) -> None:
        """Find the times of operators in float and in their other forms, and of the source.

        Raises:
            UsageError: A given table lacks one.
        """
        sizes = ["x".join(map(str, np.shape(value))) for value in self._sample.values()]
        source = f"source {model_digest(self._program.model)[:12]} on {' '.join(sizes)}"
        if self._budget.table is None:
            self._measure(source, [*real, *asked])
        else:
            self._take(self._budget.table, source, real, asked)
        self.whole = self._seconds[source]

    def _take(
        self,
        given: LatencyTable,
        source: str,
        real: Sequence[Operation],
        asked: Sequence[Operation],
    ) -> None:
        operations = {str(op): op for op in (*real, *asked)}
        found = {name: given.seconds.get(name) for name in (source, *operations)}
        if given.nearest:
            known = [Operation.parse(n) for n in given.seconds if not n.startswith("source ")]
            for name, op in operations.items():
                if found[name] is None and (near := op.nearest(known)) is not None:
                    found[name] = near.scaled(given.seconds[str(near)], op)
            if found[source] is None and None not in (found[str(op)] for op in real):
                found[source] = sum(found[str(op)] or 0.0 for op in real)
        missing = [name for name, seconds in found.items() if seconds is None]
        if missing:
            raise UsageError(
                f"the table of latencies has no time for {len(missing)} of {len(found)} forms",
                why="missing: " + "; ".join(missing[:4]) + ("; ..." if len(missing) > 4 else ""),
                hint="name a file that is not there: it is measured on this machine and written",
            )
        self._seconds = {name: seconds for name, seconds in found.items() if seconds is not None}

    def _measure(self, source: str, operations: Sequence[Operation]) -> None:
        kept = self._kept()
        names = {str(operation): operation for operation in operations}
        missing = [op for name, op in names.items() if name not in kept]
        fresh: dict[str, float] = {}
        with self._context.progress.task("measure-costs", len(missing)) as task:
            # All forms of an operator are measured together, so that a ratio is one of equals.
            for one in dict.fromkeys(replace(op, form=FLOAT) for op in missing):
                group = [op for op in names.values() if replace(op, form=FLOAT) == one]
                fresh.update(measured(group))
                task.advance(len(group))
        if source not in kept or fresh:
            session = HybridSession(self._program)
            (fresh[source],) = turns_of([partial(session.run, self._sample, shots=0)])
        self._seconds = {**kept, **fresh}
        if fresh and self._budget.path is not None:
            table = LatencyTable(self._seconds, self.machine)
            try:
                table.write(self._budget.path)
            except QcompError as error:
                self._context.warn(f"latencies were measured, but not kept: {error.what}")

    def _kept(self) -> dict[str, float]:
        path = self._budget.path
        if path is None or not path.is_file():
            return {}
        try:
            found = LatencyTable.read(path)
        except UsageError as error:
            self._context.warn(f"{error.what}: latencies are measured again")
            return {}
        return dict(found.seconds) if found.machine == self.machine else {}
