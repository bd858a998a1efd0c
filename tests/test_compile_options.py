"""How a module and its example inputs are handed to the compiler; nothing in a file is executed."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcomp
from qcomp.errors import QcompError, SourceError, UsageError
from tests import models

torch = pytest.importorskip("torch")

TEXT = """OPENQASM 3.0;
include "stdgates.inc";
input float x; input float w;
qubit[1] q;
ry(x) q[0]; rx(w) q[0];
"""


class Hybrid(torch.nn.Module):
    """A linear layer, a circuit, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        from qcomp.nn import QuantumLayer

        self.encode = torch.nn.Linear(3, 1)
        self.circuit = QuantumLayer(TEXT, ["x"])
        self.head = torch.nn.Linear(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.circuit(self.encode(x)))


def test_a_module_its_example_inputs_and_a_joined_target_are_all_that_is_needed() -> None:
    torch.manual_seed(0)
    model = Hybrid().eval()
    x = torch.randn(32, 3)
    artifact = qcomp.compile(
        model, x[:2], target="cpu-int8+ibm-heron", calibration={"x": x.numpy()}
    )
    kinds = [stage["kind"] for stage in artifact.manifest["stages"]]
    assert kinds == ["graph", "circuit", "graph"]
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(artifact(x) - expected).max() < 0.05


def test_the_report_of_a_hybrid_model_is_complete() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 3)
    artifact = qcomp.compile(Hybrid().eval(), x[:2], target="cpu-int8+portable",
                             calibration={"x": x.numpy()})  # fmt: skip
    report = artifact.report
    assert {line["name"] for line in report["targets"]} == {"cpu-int8", "portable"}
    assert len(report["circuits"]) == len(report["runs"]) == 1
    assert [layer["op"] for layer in report["quantization"]["layers"]] == ["Gemm", "Gemm"]
    said = " ".join(check["what"] for check in report["checks"])
    for part in ("circuit", "angles that the graph computes", "outputs against the float source"):
        assert part in said
    assert all(check["result"] in ("proved", "measured") for check in report["checks"])


def test_a_target_in_the_place_of_example_inputs_is_explained() -> None:
    with pytest.raises(UsageError, match=r"target='cpu-int8'"):
        qcomp.compile(models.mlp(), "cpu-int8")


def test_an_option_that_no_frontend_has_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="'torch' has no option 'example_input'") as caught:
        qcomp.read(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
    assert "example_inputs" in str(caught.value)
    with pytest.raises(UsageError, match="no option 'example_inputs'"):
        qcomp.compile(models.mlp(), np.zeros((1, 8)), target="cpu-dynamic-int8")


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(str(self.path)),))  # type: ignore[return-value]


def test_nothing_in_a_model_file_is_unpickled_or_executed(tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    payload = pickle.dumps(Bomb(fired))
    pickle.loads(payload)  # the bomb works
    assert fired.exists()
    fired.unlink()

    files = []
    for suffix in (".pt2", ".pt", ".pth"):
        plain = tmp_path / f"plain{suffix}"
        plain.write_bytes(payload)
        archive = tmp_path / f"archive{suffix}"
        with zipfile.ZipFile(archive, "w") as file:
            for name in ("archive/data.pkl", "data.pkl", "models/model.json", "extra/model.pkl"):
                file.writestr(name, payload)
        torch.save({"weights": Bomb(fired)}, tmp_path / f"saved{suffix}")
        files += [plain, archive, tmp_path / f"saved{suffix}"]
    graph = models.mlp()
    graph.metadata_props.add(key="code", value="__import__('pathlib').Path('fired').touch()")
    graph.graph.node[0].doc_string = "__import__('os')"
    onnx.save(graph, tmp_path / "model.onnx")
    (tmp_path / "model.onnx.data").write_bytes(payload)
    for path in files:
        with pytest.raises(QcompError):
            qcomp.read(path)
    qcomp.read(tmp_path / "model.onnx")
    assert not fired.exists()


def test_arrays_of_objects_and_manifests_with_code_run_nothing(tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    np.savez(tmp_path / "x.npz", x=np.array([Bomb(fired)], dtype=object))
    artifact = qcomp.compile(models.small_circuit(), target="portable", out=tmp_path / "out")
    fired.unlink(missing_ok=True)
    with pytest.raises(QcompError):
        qcomp.compile(models.mlp(), target="cpu-int8", calibration=tmp_path / "x.npz")
    manifest = json.loads((artifact.path / "program.json").read_text())
    manifest["stages"][0]["kind"] = "python"
    (artifact.path / "program.json").write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match="damaged"):
        qcomp.load(artifact.path)
    assert not fired.exists()
