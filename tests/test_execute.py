"""Graphs and hybrid programs run, always the same way, and say clearly what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp import execute
from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession, Session, optimized
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.ir.program import Program, Readout
from qcomp.simulate import expectations
from tests import models

X = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


def mlp_by_hand(x: np.ndarray) -> np.ndarray:
    w = {t.name: onnx.numpy_helper.to_array(t) for t in models.mlp().graph.initializer}
    return np.maximum(x @ w["w0"].T + w["b0"], 0) @ w["w1"].T + w["b1"]


def test_every_form_of_a_model_runs_alike(tmp_path: Path) -> None:
    proto = models.mlp()
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    for model in (proto, path, str(path), ir.from_proto(proto)):
        result = Session(model).run({"x": X})
        assert list(result) == ["y"]
        np.testing.assert_allclose(result["y"], mlp_by_hand(X), rtol=1e-5, atol=1e-6)


def test_two_runs_give_the_same_bits() -> None:
    session, other = Session(models.small_cnn()), Session(models.small_cnn())
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    first = session.run({"x": x})["y"]
    assert session.run({"x": x})["y"].tobytes() == first.tobytes()
    assert other.run({"x": x})["y"].tobytes() == first.tobytes()


def test_only_the_outputs_asked_for_are_computed() -> None:
    session = Session(models.with_loop())
    result = session.run({"x": np.ones(4, np.float32)}, ["seen"])
    assert list(result) == ["seen"]
    assert result["seen"].tolist() == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    with pytest.raises(UsageError, match="no output 'sen'") as caught:
        session.run({"x": np.ones(4, np.float32)}, ["sen"])
    assert "seen" in caught.value.hint


def test_a_model_over_the_limit_runs_from_a_file_that_goes_with_the_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(execute, "INLINE_LIMIT", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = Session(ir.from_proto(models.mlp()))
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_allclose(session.run({"x": X})["y"], mlp_by_hand(X), rtol=1e-5, atol=1e-6)
    del session
    assert list(tmp_path.iterdir()) == []


def test_doubles_are_taken_for_floats_and_other_types_are_refused() -> None:
    session = Session(models.mlp())
    single = session.run({"x": X})["y"]
    np.testing.assert_array_equal(session.run({"x": X.astype(np.float64)})["y"], single)
    with pytest.raises(UsageError, match="input 'x' is complex128, but the model takes float32"):
        session.run({"x": X.astype(complex)})


@pytest.mark.parametrize(
    ("feeds", "match"),
    [
        ({}, "input missing: 'x'"),
        ({"x": X, "xx": X}, "there is no input 'xx'"),
        ({"x": X[:, :3]}, r"input 'x' has the shape \[5, 3\], but the model takes \[batch, 8\]"),
        ({"x": X[0]}, r"input 'x' has the shape \[8\], but the model takes \[batch, 8\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(feeds: dict[str, np.ndarray], match: str) -> None:
    for session in (Session(models.mlp()), HybridSession(OnnxFrontend().read(models.mlp()))):
        with pytest.raises(UsageError, match=match):
            session.run(feeds)


def test_a_graph_that_the_runtime_refuses_is_one_clear_error() -> None:
    with pytest.raises(PassError, match="ONNX Runtime refuses the graph") as caught:
        Session(models.with_custom_domain())
    assert "acme.ops" in caught.value.why
    with pytest.raises(UsageError, match="0 threads"):
        Session(models.mlp(), threads=0)


def test_the_optimised_graph_shows_what_the_runtime_fuses() -> None:
    ops = [node.op_type for node in optimized(ir.from_proto(models.small_cnn())).graph]
    assert "Conv" in ops
    assert not {"BatchNormalization", "Relu"} & set(ops)


def by_hand(program: Program, x: np.ndarray, depth: int) -> np.ndarray:
    """The hybrid test model in plain NumPy around the simulator."""
    w = {
        name: np.asarray(value.const_value.numpy(), np.float64)
        for name, value in program.model.graph.initializers.items()
        if value.const_value is not None
    }
    from qcomp.ir.program import readout_of

    value = x
    for index, node in enumerate(program.circuit_nodes()):
        angles = value @ w[f"encode{index}_w"] + w[f"encode{index}_b"]
        value = expectations(program.circuit_of(node), angles, readout_of(node).observables)
    return value @ w["head_w"] + w["head_b"] + x @ w["around_w"]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_hybrid_program_runs_its_circuits_in_the_simulator(depth: int) -> None:
    program = models.hybrid(depth)
    x = np.random.default_rng(2).standard_normal((7, 4)).astype(np.float32)
    result = HybridSession(program).run({"x": x})
    assert result["y"].dtype == np.float32
    np.testing.assert_allclose(result["y"], by_hand(program, x, depth), rtol=1e-5, atol=1e-5)


def test_taps_give_values_from_inside_beside_the_outputs() -> None:
    program = models.hybrid(1)
    x = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
    taps = ["encode0_out", "measured0", "x", "head_w"]
    session = HybridSession(program, taps=taps)
    assert session.outputs == ("y", *taps)
    result = session.run({"x": x})
    weights = program.model.graph.initializers
    np.testing.assert_array_equal(result["head_w"], weights["head_w"].const_value.numpy())
    np.testing.assert_array_equal(result["x"], x)
    angles = x @ weights["encode0_w"].const_value.numpy() + weights["encode0_b"].const_value.numpy()
    np.testing.assert_allclose(result["encode0_out"], angles, rtol=1e-5, atol=1e-6)
    assert result["measured0"].shape == (3, 2)
    np.testing.assert_array_equal(result["y"], HybridSession(program).run({"x": x})["y"])
    assert list(session.run({"x": x}, ["measured0"])) == ["measured0"]


def test_batches_are_streamed_one_at_a_time() -> None:
    session = HybridSession(models.hybrid(1), taps=["measured0"])
    drawn = []

    def batches() -> object:
        for index in range(3):
            drawn.append(index)
            yield {"x": np.full((2, 4), index, np.float32)}

    stream = session.stream(batches())  # type: ignore[arg-type]
    first = next(stream)
    assert drawn == [0]
    rest = list(stream)
    assert drawn == [0, 1, 2]
    assert [r["y"].shape for r in (first, *rest)] == [(2, 3)] * 3


def test_shots_are_drawn_from_the_seed() -> None:
    session = HybridSession(models.hybrid(1))
    x = np.ones((4, 4), np.float32)
    exact = session.run({"x": x})["y"]
    one, same, other = (session.run({"x": x}, shots=200, seed=seed)["y"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert 0 < np.abs(one - exact).max() < 1.0


def test_leading_axes_of_a_circuits_inputs_are_its_batch() -> None:
    circuit = models.small_circuit()
    program = Program.of_circuit(circuit, Readout("probs"))
    session = HybridSession(program)
    params = np.random.default_rng(4).standard_normal((2, 3, 2))
    result = session.run({"params": params})["layer_probs"]
    assert result.shape == (2, 3, 4)
    np.testing.assert_allclose(result.sum(axis=-1), 1.0, atol=1e-12)
    single = session.run({"params": params[1, 2]})["layer_probs"]
    np.testing.assert_allclose(single, result[1, 2], atol=1e-12)


def test_a_wrong_number_of_parameters_is_refused_by_the_node() -> None:
    session = HybridSession(Program.of_circuit(models.small_circuit(), Readout("probs")))
    with pytest.raises(UsageError, match="has 2 parameters, but its inputs have 3") as caught:
        session.run({"params": np.ones((1, 3))})
    assert "node 'layer'" in caught.value.where


def test_an_input_or_a_weight_that_is_an_output_is_given_back() -> None:
    program = OnnxFrontend().read(models.mlp())
    graph = program.model.graph
    graph.outputs.append(graph.initializers["b1"])
    result = HybridSession(program).run({"x": X})
    np.testing.assert_array_equal(result["b1"], graph.initializers["b1"].const_value.numpy())
    np.testing.assert_allclose(result["y"], mlp_by_hand(X), rtol=1e-5, atol=1e-6)
