"""S049: quantum long short-term memory, compiled without unrolling (arXiv:2009.01783).

The three curves of the paper; the weights are committed, ``examples/qlstm/train.py`` trains them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import qcomp
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.target import get_target

torch.set_num_threads(1)

FOLDER = Path(__file__).parents[2] / "examples" / "qlstm"
CURVES = ("pendulum", "sine", "bessel")
MOST = {"pendulum": 4.0, "sine": 1.2, "bessel": 1.2}
"""Most that the QLSTM's error may be, as a multiple of the LSTM's."""


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The example's module, its folder on the path as when it is run."""
    sys.path.insert(0, str(FOLDER))
    import qlstm

    yield qlstm
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def programs(example: ModuleType) -> dict[str, Program]:
    axes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=2)},)
    first = qcomp.read(
        example.trained(CURVES[0]),
        example_inputs=torch.zeros(2, 4, 1),
        dynamic_shapes=axes,
        output_names=["forecast", "hidden"],
    )
    found = {CURVES[0]: first}
    for name in CURVES[1:]:  # the structure is one: only the weights are others
        found[name] = first.copy()
        weights = example.trained(name).state_dict()
        for key, value in found[name].model.graph.initializers.items():
            if key in weights:
                import onnx_ir as ir

                value.const_value = ir.tensor(weights[key].numpy(), name=key)
    return found


@pytest.fixture(scope="module")
def artifacts(
    programs: dict[str, Program], example: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The compiled models, one of them made by running the example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("qlstm"))
        example.main("bessel")
        found = {"bessel": qcomp.load(Path("out", "qlstm-bessel").absolute())}
    for name in ("pendulum", "sine"):
        data = example.split(name)[0][::4].numpy()
        found[name] = qcomp.compile(programs[name], target="cpu-int8+ibm-heron",
                                    calibration={"x": data})  # fmt: skip
    return found


def test_the_example_is_short_and_the_model_has_six_circuits_in_one_loop(
    programs: dict[str, Program],
) -> None:
    assert len((FOLDER / "qlstm.py").read_text(encoding="utf-8").splitlines()) < 100
    program = programs["sine"]
    assert [node.op_type for node in program.model.graph].count("Scan") == 1
    assert len(program.all_circuit_nodes()) == 6


@pytest.mark.parametrize("name", CURVES)
def test_hidden_states_over_100_steps_are_those_of_pytorch(
    name: str, artifacts: dict[str, Any], example: ModuleType
) -> None:
    import curves

    sequence = curves.curve(name)[:100].reshape(1, 100, 1)
    with torch.no_grad():
        forecast, hidden = example.trained(name)(torch.from_numpy(sequence))
    got = artifacts[name](sequence)
    error = np.abs(got["hidden"] - hidden.numpy()).max()
    print(f"S049 {name}: largest difference of hidden states over 100 steps {error:.1e}")
    assert got["hidden"].shape == (1, 100, 3)
    assert error <= 1e-5
    assert np.abs(got["forecast"] - forecast.numpy()).max() < 0.02  # the head is INT8


def test_each_circuit_is_one_text_with_input_angles_whatever_the_number_of_steps(
    artifacts: dict[str, Any],
) -> None:
    artifact = artifacts["pendulum"]
    kinds = [stage["kind"] for stage in artifact.manifest["stages"]]
    assert kinds == ["graph", "loop", "graph"]
    texts = sorted(path.name for path in artifact.path.glob("*.qasm"))
    assert len(texts) == 6
    for text in texts:
        assert (artifact.path / text).read_text(encoding="utf-8").count("input float") == 8
    runs = artifact.manifest["plan"]["runs"]
    assert [run["level"] for run in runs] == [0, 0, 0, 0, 1, 1]
    assert {run["settings"] for run in runs} == {1}


def test_gates_after_fusion_are_at_most_eight_tenths_of_those_written_one_by_one(
    programs: dict[str, Program], artifacts: dict[str, Any]
) -> None:
    target = get_target("ibm-heron")
    naive = programs["sine"].copy()
    context = Context()
    context.target = target
    basis = ",".join(target.basis)
    Pipeline.parse(f"bind-weights,to-basis{{gates=[{basis}]}}").run(naive, context)
    before = sum(len(circuit) for circuit in naive.circuits.values())
    after = sum(len(circuit) for circuit in artifacts["sine"].circuits.values())
    print(f"S049 gates: {before} one by one, {after} compiled and mapped: {after / before:.2f}")
    assert after <= 0.8 * before


def test_compiling_takes_at_most_five_seconds(artifacts: dict[str, Any]) -> None:
    """The last compile of three: what is imported or compiled once is there by then."""
    seconds = artifacts["sine"].report["cpu_seconds"]
    print(f"S049 compile: {seconds:.2f} CPU s")
    assert seconds <= 5.0


def test_the_error_on_the_test_part_is_beside_that_of_an_lstm_of_equal_size(
    artifacts: dict[str, Any], example: ModuleType
) -> None:
    import curves
    import train

    for name in CURVES:
        _, _, x, y = curves.split(name)
        lstm = train.Lstm()
        with np.load(FOLDER / "weights.npz") as data:
            lstm.load_state_dict(
                {key: torch.tensor(data[f"{name}/lstm/{key}"]) for key in lstm.state_dict()}
            )
        with torch.no_grad():
            usual = float(train.error(lstm, x, y))
            quantum = float(train.error(example.trained(name), x, y))
        exact = float(np.mean((artifacts[name](x)["forecast"] - y.numpy()) ** 2))
        print(f"S049 {name}: test MSE QLSTM {quantum:.2e} (compiled {exact:.2e}), "
              f"LSTM {usual:.2e}, ratio {quantum / usual:.2f}")  # fmt: skip
        assert quantum <= MOST[name] * usual
        assert exact <= 1.1 * quantum + 1e-4
