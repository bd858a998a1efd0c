"""Partition writes down at each node the stage it runs in."""

from __future__ import annotations

from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.passes.graph.partition import STAGE_KEY, Partition
from qcomp.passmanager import Context
from tests import models


def test_each_node_of_a_hybrid_graph_gets_its_stage() -> None:
    program = models.hybrid(2)
    assert Partition().run(program, Context())
    stages = {node.name: node.metadata_props[STAGE_KEY] for node in program.model.graph}
    assert stages == {
        "encode0": "classical-0",
        "quantum0": "circuit-0",
        "encode1": "classical-1",
        "quantum1": "circuit-1",
        "around": "classical-2",
        "head": "classical-2",
        "sum": "classical-2",
    }
    assert not Partition().run(program, Context())


def test_a_graph_without_circuits_is_one_stage() -> None:
    program = OnnxFrontend().read(models.small_cnn())
    Partition().run(program, Context())
    assert {node.metadata_props[STAGE_KEY] for node in program.model.graph} == {"classical-0"}
