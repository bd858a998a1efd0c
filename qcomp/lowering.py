"""Arrays become circuits before a target's pipeline looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcomp.ir.arrays import LOWERING, array_nodes, lowering_options
from qcomp.passmanager import Pipeline

if TYPE_CHECKING:
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context, Observer, PassRecord

__all__ = ["lower_arrays", "lowered_copy", "lowered_first"]


def lowered_first(
    program: Program, text: str | None, context: Context, observer: Observer | None = None
) -> tuple[str | None, list[PassRecord]]:
    """Lower a program's arrays as :func:`lower_arrays` does, by the text of a pipeline.

    Returns:
        What is left of the text (None where nothing is), and what the passes did.

    Raises:
        PassError: If a pass fails.
    """
    pipeline = None if text is None else Pipeline.parse(text)
    first = 0 if pipeline is None else _first(pipeline)
    if not array_nodes(program):
        if pipeline is None or not first:
            return text, []
        records = Pipeline(pipeline.steps[:first]).run(program, context, observer)
    else:
        records = lower_arrays(program, context, pipeline, observer)
    rest = None if pipeline is None else str(Pipeline(pipeline.steps[first:]))
    return rest or None, records


def lower_arrays(
    program: Program,
    context: Context,
    pipeline: Pipeline | None = None,
    observer: Observer | None = None,
) -> list[PassRecord]:
    """Lower a program's arrays: by a pipeline's first passes if these do that, else by default.

    By default a node says which options its pass takes. A program without array nodes is left
    alone, and no pass is run.

    Args:
        program: The program, changed in place.
        context: What passes may use.
        pipeline: The pipeline that will run; its first passes find nothing to do then.
        observer: Called after each pass.

    Raises:
        PassError: If a pass fails.
    """
    if not array_nodes(program):
        return []
    records: list[PassRecord] = []
    if pipeline is not None:
        first = Pipeline(pipeline.steps[: _first(pipeline)])
        records += first.run(program, context, observer)
    steps: list[str] = []
    for node in array_nodes(program):
        words = ",".join(f"{key}={value}" for key, value in lowering_options(node).items())
        steps.append(LOWERING[node.op_type] + (f"{{{words}}}" if words else ""))
    text = ",".join(dict.fromkeys(steps))
    return records + Pipeline.parse(text).run(program, context, observer)


def lowered_copy(program: Program, context: Context) -> Program:
    """Return the program with its arrays lowered: itself where it has none, else a copy.

    Raises:
        PassError: If a pass fails.
    """
    if not array_nodes(program):
        return program
    copy = program.copy()
    lower_arrays(copy, context)
    return copy


def _first(pipeline: Pipeline) -> int:
    """Return how many passes at the beginning of a pipeline lower arrays or encode inputs."""
    known = {*LOWERING.values(), "encode-input"}
    names = [str(step).partition("{")[0] for step in pipeline.steps]
    return next((i for i, name in enumerate(names) if name not in known), len(names))
