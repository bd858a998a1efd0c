"""The torch frontend: modules, exported programs and ``.pt2`` files become Programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from qcomp.errors import SourceError, UsageError
from qcomp.execute import HybridSession
from qcomp.frontends.torch_model import TorchFrontend
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program, readout_of
from qcomp.nn import QuantumLayer

torch.set_num_threads(1)


def layer(num_qubits: int = 3, name: str = "ansatz", shift: float = 0.0) -> QuantumLayer:
    circuit = Circuit(num_qubits, name=name)
    for q in range(num_qubits):
        circuit.ry(Parameter(f"x{q}") + shift, q)
        circuit.rz(Parameter(f"w{q}"), q)
    for q in range(num_qubits):
        circuit.cx(q, (q + 1) % num_qubits)
        circuit.ry(Parameter(f"v{q}"), q)
    return QuantumLayer(circuit, [f"x{q}" for q in range(num_qubits)])


class Hybrid(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.down = torch.nn.Linear(64, 3)
        self.first = layer()
        self.middle = torch.nn.Linear(3, 2)
        self.second = QuantumLayer(
            layer(2, shift=0.2).circuit, ["x0", "x1"], ["Z0", "X0*X1"], shots=0
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(pixels)))
        x = torch.tanh(self.down(x.flatten(1)))
        return self.second(self.middle(self.first(x)))


@pytest.fixture(scope="module")
def model() -> Hybrid:
    torch.manual_seed(0)
    module = Hybrid()
    module(torch.randn(32, 1, 6, 6))
    return module


def outputs_of(program: Program, pixels: np.ndarray) -> np.ndarray:
    result = HybridSession(program).run({program.model.graph.inputs[0].name: pixels})
    return np.asarray(result[program.model.graph.outputs[0].name])


def expected(model: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    was = model.training
    with torch.no_grad():
        out = model.eval()(torch.from_numpy(pixels)).numpy()
    model.train(was)
    return out


def test_a_module_with_two_quantum_layers_computes_the_same(model: Hybrid) -> None:
    program = TorchFrontend().read(model, example_inputs=torch.zeros(1, 1, 6, 6))
    graph = program.model.graph
    assert [value.name for value in graph.inputs] == ["pixels"]
    assert str(graph.inputs[0].shape) == "[batch,1,6,6]"
    assert sorted(program.circuits) == ["ansatz", "ansatz_2"]
    assert {"conv.weight", "down.bias", "first.weight", "middle.weight"} <= set(graph.initializers)
    assert program.notes == []
    for rows in (1, 5):
        pixels = np.random.default_rng(rows).normal(size=(rows, 1, 6, 6)).astype(np.float32)
        assert np.abs(outputs_of(program, pixels) - expected(model, pixels)).max() < 1e-5


def test_the_module_is_left_in_its_mode_and_the_program_keeps_its_own_weights(
    model: Hybrid,
) -> None:
    model.train()
    model.norm.eval()
    program = TorchFrontend().read(model, example_inputs=torch.zeros(2, 1, 6, 6))
    assert model.training
    assert not model.norm.training
    assert model.conv.training
    kept = program.model.graph.initializers["down.bias"].const_value.numpy().copy()
    with torch.no_grad():
        model.down.bias.add_(1.0)
    assert np.array_equal(program.model.graph.initializers["down.bias"].const_value.numpy(), kept)
    with torch.no_grad():
        model.down.bias.sub_(1.0)


def test_without_the_exporters_fusion_batch_norm_stays(model: Hybrid) -> None:
    program = TorchFrontend().read(
        model, example_inputs=torch.zeros(2, 1, 6, 6), optimize=False, output_names=["scores"]
    )
    assert "BatchNormalization" in [node.op_type for node in program.model.graph]
    assert [value.name for value in program.model.graph.outputs] == ["scores"]
    pixels = np.random.default_rng(3).normal(size=(4, 1, 6, 6)).astype(np.float32)
    assert np.abs(outputs_of(program, pixels) - expected(model, pixels)).max() < 1e-5


def test_two_quantum_layers_compile_in_one_call(model: Hybrid) -> None:
    import qcomp

    pixels = np.random.default_rng(6).normal(size=(64, 1, 6, 6)).astype(np.float32)
    artifact = qcomp.compile(
        model,
        target="cpu-int8+ibm-heron",
        calibration={"pixels": pixels},
        example_inputs=torch.zeros(2, 1, 6, 6),
    )
    assert sorted(artifact.circuits) == ["ansatz", "ansatz_2"]
    want = expected(model, pixels)
    assert np.abs(artifact(pixels) - want).mean() < 0.05 * np.abs(want).mean()
    noisy = artifact(pixels, shots=4096)
    assert 0 < np.abs(noisy - artifact(pixels)).mean() < 0.05


def test_a_missing_package_is_named_with_how_to_get_it(
    model: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match="needs the package 'onnxscript'"):
        TorchFrontend().read(model, example_inputs=torch.zeros(2, 1, 6, 6))


def test_a_saved_program_is_a_checked_onnx_file_with_the_circuit_inside(
    model: Hybrid, tmp_path: Path
) -> None:
    import qcomp

    program = TorchFrontend().read(model, example_inputs=torch.zeros(2, 1, 6, 6))
    program.save(tmp_path / "hybrid.onnx")
    proto = onnx.load(tmp_path / "hybrid.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert str(Path(__file__).parent).encode() not in (tmp_path / "hybrid.onnx").read_bytes()
    assert b"stack_trace" not in (tmp_path / "hybrid.onnx").read_bytes()
    nodes = [node for node in proto.graph.node if node.domain == "ai.qcomp"]
    texts = [a.s.decode() for node in nodes for a in node.attribute if a.name == "qasm"]
    assert len(texts) == 2
    assert all(text.startswith("OPENQASM 3") for text in texts)
    again = qcomp.read(tmp_path / "hybrid.onnx")
    assert [readout_of(n) for n in again.circuit_nodes()] == [
        readout_of(n) for n in program.circuit_nodes()
    ]
    pixels = np.random.default_rng(4).normal(size=(3, 1, 6, 6)).astype(np.float32)
    assert np.abs(outputs_of(again, pixels) - outputs_of(program, pixels)).max() < 1e-6


def test_an_exported_program_and_its_file_are_read_in_a_fresh_process(
    model: Hybrid, tmp_path: Path
) -> None:
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        model.eval(), (torch.zeros(2, 1, 6, 6),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(exported, tmp_path / "hybrid.pt2")
    pixels = np.random.default_rng(5).normal(size=(3, 1, 6, 6)).astype(np.float32)
    want = expected(model, pixels)
    assert np.abs(outputs_of(TorchFrontend().read(exported), pixels) - want).max() < 1e-5
    np.save(tmp_path / "pixels.npy", pixels)
    script = """
import sys, numpy as np, qcomp
from qcomp.execute import HybridSession
program = qcomp.read(sys.argv[1] + "/hybrid.pt2")
assert str(program.model.graph.inputs[0].shape) == "[batch,1,6,6]"
result = HybridSession(program).run({"pixels": np.load(sys.argv[1] + "/pixels.npy")})
np.save(sys.argv[1] + "/out.npy", next(iter(result.values())))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert np.abs(np.load(tmp_path / "out.npy") - want).max() < 1e-5


def test_inputs_may_be_several_or_named() -> None:
    class Two(torch.nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left @ right.transpose(1, 2)

    left, right = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    for inputs in ((left, right), {"left": left, "right": right}):
        program = TorchFrontend().read(Two(), example_inputs=inputs)
        assert [value.name for value in program.model.graph.inputs] == ["left", "right"]
        assert {str(v.shape[0]) for v in program.model.graph.inputs} == {"batch"}


def test_all_unsupported_operators_are_listed_with_counts() -> None:
    class Bad(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values = torch.linalg.svd(x)[1]
            return values + torch.special.bessel_j0(x).sum() + torch.special.bessel_j0(-x).sum()

    with pytest.raises(SourceError) as caught:
        TorchFrontend().read(Bad(), example_inputs=torch.randn(3, 3))
    assert "2 operators" in str(caught.value)
    assert "svd" in str(caught.value)
    assert "bessel_j0.default (2x)" in str(caught.value)


def test_control_flow_on_values_is_refused_in_one_sentence() -> None:
    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(SourceError, match="torch cannot export the model"):
        TorchFrontend().read(Branch(), example_inputs=torch.randn(2, 2))


def test_a_model_that_fixes_its_batch_is_read_and_the_note_says_so() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, -1).sum(dim=1) if x.shape[0] == 4 else x

    program = TorchFrontend().read(Fixed(), example_inputs=torch.randn(4, 3))
    assert list(program.model.graph.inputs[0].shape) == [4, 3]
    assert "batch axis is fixed" in program.notes[0]


def test_a_module_without_example_inputs_is_refused(model: Hybrid) -> None:
    with pytest.raises(UsageError, match="needs example inputs"):
        TorchFrontend().read(model)


def test_torch_models_are_told_from_other_sources() -> None:
    frontend = TorchFrontend()
    assert frontend.accepts(torch.nn.Linear(1, 1))
    assert frontend.accepts("model.pt2")
    assert not frontend.accepts("model.onnx")
    assert not frontend.accepts(onnx_ir)
    assert not frontend.accepts("OPENQASM 3.0;")
