"""S036: scalable quantum neural networks by few quantum resources (arXiv:2307.01017).

A two-layer network whose hidden units are squared overlaps, which swap tests of two registers of
two qubits measure. ``tests/papers/make_s036.py`` trains it on iris.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import qcomp
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.lowered import LoweredLayer, LoweredLayers
from qcomp.passmanager import Context, Pipeline
from tests.papers.make_s036 import WEIGHTS, Fold, TwoLayers, folds

FOLDS: tuple[Fold, ...] = tuple(folds())


def _twin(number: int) -> TwoLayers:
    model = TwoLayers()
    with np.load(WEIGHTS) as stored:
        state = {n: torch.from_numpy(stored[f"{n}_{number}"]) for n in model.state_dict()}
    model.load_state_dict(state)
    return model


def _model(twin: TwoLayers) -> onnx.ModelProto:
    """Return the network as ONNX in float64."""
    arrays = {
        "w": twin.directions().detach().numpy(),
        "v": twin.out.weight.detach().numpy().T,
        "b": twin.out.bias.detach().numpy(),
        "axes": np.array([-1]),
    }
    nodes = [
        helper.make_node("ReduceL2", ["x", "axes"], ["norm"], keepdims=1),
        helper.make_node("Div", ["x", "norm"], ["unit"]),
        helper.make_node("MatMul", ["unit", "w"], ["overlap"], name="hidden"),
        helper.make_node("Mul", ["overlap", "overlap"], ["squares"]),
        helper.make_node("Gemm", ["squares", "v", "b"], ["y"], name="out"),
    ]
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def _lowered(number: int, form: str = "") -> tuple[Program, LoweredLayer]:
    program = qcomp.read(_model(_twin(number))).copy()
    context = Context()
    option = f",form={form}" if form else ""
    Pipeline.parse(f"lower-layer{{node=hidden,method=swap-test{option}}}").run(program, context)
    return program, context.need(LoweredLayers, "lower-layer").layers[0]


@pytest.mark.parametrize("form", ["bell", "ancilla"])
def test_exact_logits_are_those_of_the_closed_form(form: str) -> None:
    twin = _twin(0)
    program, layer = _lowered(0, form)
    x = FOLDS[0][2]
    w, v = twin.directions().detach().numpy(), twin.out.weight.detach().numpy()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    closed = (unit @ w) ** 2 @ v.T + twin.out.bias.detach().numpy()
    got = HybridSession(program).run({"x": x}, shots=0)["y"]
    assert np.abs(got - closed).max() < 1e-9
    assert layer.qubits == (4 if form == "bell" else 5)


def test_logits_of_ten_thousand_shots_are_within_three_sigma() -> None:
    twin = _twin(0)
    program, _ = _lowered(0)
    x = FOLDS[0][2]
    w, v = twin.directions().detach().numpy(), twin.out.weight.detach().numpy()
    p = ((x / np.linalg.norm(x, axis=1, keepdims=True)) @ w) ** 2
    session = HybridSession(program)
    exact = session.run({"x": x}, shots=0)["y"]
    sampled = session.run({"x": x}, shots=10_000, seed=3)["y"]
    sigma = np.sqrt((1 - p**2) @ (v**2).T / 10_000)  # an outcome is 1 or -1 with mean p
    deviation = np.abs(sampled - exact) / sigma
    assert (deviation < 3).mean() >= 0.98
    assert 0.2 < deviation.mean() < 1.2  # 0.8 for a normal distribution


def test_an_overlap_takes_n_cx_by_the_bell_form_and_the_ancilla_seven_n() -> None:
    costs = {form: _lowered(0, form)[1] for form in ("bell", "ancilla")}
    loaders = 2 * (2**2 - 2 - 1)
    assert costs["bell"].two_qubit == loaders + 2
    assert costs["ancilla"].two_qubit >= loaders + 7 * 2
    assert _lowered(0)[1].two_qubit == costs["bell"].two_qubit  # the cheaper one by itself


def test_one_module_circuit_of_four_qubits_serves_all_hidden_units() -> None:
    program, layer = _lowered(1)
    assert len(program.circuits) == 1
    assert layer.runs == layer.settings == 6


def test_the_accuracy_of_five_folds_is_that_of_the_twin() -> None:
    own, twins = [], []
    for number, (_, _, x, y) in enumerate(FOLDS):
        program, _ = _lowered(number)
        scores = HybridSession(program).run({"x": x}, shots=0)["y"]
        expected = _twin(number)(torch.from_numpy(x)).detach().numpy()
        assert np.array_equal(scores.argmax(axis=1), expected.argmax(axis=1))
        own.append((scores.argmax(axis=1) == y).mean())
        twins.append((expected.argmax(axis=1) == y).mean())
    assert np.mean(own) == np.mean(twins)
    assert np.mean(own) >= 0.9
