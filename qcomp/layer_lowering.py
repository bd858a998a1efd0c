"""Layers of a compile that become circuits: ``--lower NODE=METHOD``, run and compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qcomp.errors import UsageError
from qcomp.ir.program import Comparison
from qcomp.lowered import LoweredLayers
from qcomp.node_rules import NodeRules, node_name
from qcomp.passmanager import Observer, Pass, run_pass
from qcomp.pipeline_text import make_pass

if TYPE_CHECKING:
    from qcomp.compilation import Compilation
    from qcomp.ir.program import Program

__all__ = ["lower_layers", "parse_lowering"]

_TEXT = re.compile(r"(?P<node>.+)=(?P<method>[\w-]+)\s*(\{(?P<options>[^{}]*)\})?\Z", re.DOTALL)
_COMPARED_ROWS = 4
"""Rows of data that a layer is compared on, before and after."""


def parse_lowering(text: str) -> tuple[str, str, dict[str, object]]:
    """Read ``NODE=METHOD`` or ``NODE=METHOD{block=8}``.

    Returns:
        (the pattern of nodes, the method, options).

    Raises:
        UsageError: If it is no such text.
    """
    match = _TEXT.match(text.strip())
    if match is None:
        raise UsageError(
            f"'{text}' is no layer and method",
            hint="--lower NODE=METHOD, such as '/fc1/Gemm=orthogonal{block=8}'",
        )
    options: dict[str, object] = {}
    for part in filter(None, (item.strip() for item in (match["options"] or "").split(","))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise UsageError(f"'{part}' in '{text}' is no option", hint="{block=8}")
        options[key] = int(value) if re.fullmatch(r"-?\d{1,9}", value) else value
    return match["node"].strip(), match["method"], options


def lower_layers(job: Compilation, texts: Sequence[str], observer: Observer | None = None) -> None:
    """Lower the layers that a user names; the source stays as it was, for the comparisons.

    Every layer is run before and after on the same rows: of the calibration data where there is
    some, else random ones.

    Args:
        job: The compile; its data has been taken.
        texts: What :func:`parse_lowering` reads.
        observer: Called after each pass.

    Raises:
        UsageError: If a text is wrong, no operator or method has that name, or a layer is named
            twice.
        PassError: If a method cannot take a layer.
    """
    program = job.program
    graph = program.model.graph
    methods: dict[str, str] = {}
    steps: list[tuple[str, Pass]] = []
    # All names are those of the source: what a lowering writes is not lowered again.
    for text in [texts] if isinstance(texts, str) else texts:
        pattern, method, options = parse_lowering(text)
        rules = NodeRules(include=(pattern,))
        rules.check(graph)
        for node in graph:
            name = node_name(node)
            if not rules.matches(pattern, name, node.op_type):
                continue
            if name in methods:
                raise UsageError(
                    f"the layer '{name}' is to be lowered twice: by '{methods[name]}' and, "
                    f"by '{text}', as '{method}'",
                    hint="name one method a layer; a glob may be too wide",
                )
            methods[name] = method
            step = make_pass("lower-layer", {"node": name, "method": method, **options})
            steps.append((name, step))
    for name, step in steps:
        _lower(job, step, name, observer)
    for name, circuit in program.circuits.items():
        job.source.circuits.setdefault(name, circuit)


def _lower(job: Compilation, step: Pass, name: str, observer: Observer | None) -> None:
    program, context = job.program, job.context
    before = program.copy()
    old = next(n for n in before.model.graph if node_name(n) == name).outputs[0].name or ""
    record = run_pass(step, program, context, job.records)
    job.records.append(record)
    if observer is not None:
        observer(record, program)
    layer = context.need(LoweredLayers, "lower-layer").layers[-1]
    found = _difference(before, old, program, layer.output, job)
    if found is not None:
        rows, error = found
        what = f"the {layer.op_type} '{layer.node}'"
        against = f"its form by {layer.method}"
        job.source.comparisons.append(Comparison(what, rows, (("float64", error),), against))


def _difference(
    before: Program, old: str, after: Program, new: str, job: Compilation
) -> tuple[int, float] | None:
    """Return rows, and the largest difference of a layer's output relative to max(1, |value|)."""
    from qcomp.equivalence.graphs import random_inputs
    from qcomp.errors import QcompError
    from qcomp.execute import HybridSession
    from qcomp.passes.calibrate.batches import checked_batches

    if job.context.calibration is None:
        try:
            feeds = random_inputs(before, job.context.seed)
        except QcompError as fault:
            job.context.warn(f"the layer's output was not compared: {fault.what}")
            return None
    else:
        batches = job.context.calibration()
        feeds = next(checked_batches(before.model, batches, _COMPARED_ROWS))
    results = [
        np.asarray(HybridSession(p, taps=[name], only_taps=True).run(feeds, shots=0)[name], float)
        for p, name in ((before, old), (after, new))
    ]
    scale = np.maximum(1.0, np.abs(results[0]))
    error = float((np.abs(results[0] - results[1]) / scale).max(initial=0.0))
    return len(results[0]) if results[0].ndim else 1, error
