"""What the tests of graph passes share: programs from text, and a check of equal outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import parser

from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passmanager import Context, GraphPass

Feeds = dict[str, np.ndarray]


def program_of(
    body: str, signature: str = "float[2, 3] x", result: str = "y", opset: int = 21
) -> Program:
    """A program from the text of its nodes; outputs are float of any shape."""
    outputs = ", ".join(f"float[] {name}" for name in result.split())
    text = (
        f'<ir_version: 10, opset_import: ["" : {opset}]> g ({signature}) => ({outputs}) {{{body}}}'
    )
    model = ir.from_proto(parser.parse_model(text))
    for value in model.graph.outputs:
        value.shape = None
    return Program(model)


def ops(program: Program) -> list[str]:
    return [node.op_type for node in program.model.graph]


def apply(step: GraphPass, program: Program, feeds: Feeds | None = None) -> bool:
    """Run a pass; its signature stays, outputs stay equal, a second run changes nothing."""
    graph = program.model.graph
    signature = [[v.name for v in graph.inputs], [v.name for v in graph.outputs]]
    before = run(program, feeds) if feeds is not None else {}
    changed = step.run(program, Context())
    graph = program.model.graph
    assert [[v.name for v in graph.inputs], [v.name for v in graph.outputs]] == signature
    if feeds is not None:
        for name, array in run(program, feeds).items():
            np.testing.assert_array_equal(array, before[name])
    assert not step.run(program, Context())
    return changed


def run(program: Program, feeds: Feeds) -> Feeds:
    return HybridSession(program).run(feeds)


X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5}
