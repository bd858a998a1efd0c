"""Rotations whose angles rows of data bring: words found row by row, accuracies fixed before."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import qcomp
from qcomp.angle_accuracies import AngleData, CircuitRows, RowAccuracies
from qcomp.cli.main import app
from qcomp.errors import PassError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.passes.allocate.angle_effects import Effects
from qcomp.passes.reduce.leaves import rewrite_leaves
from qcomp.passes.synthesize.clifford_t.chains import chains_of, lowered
from qcomp.passes.synthesize.clifford_t.normal_form import multiply
from qcomp.passes.synthesize.clifford_t.row_words import (
    bound_in_words,
    in_words,
    row_t_counts,
    row_turns,
    with_words,
)
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import unitary
from qcomp.simulate.from_states import expectations_from

ROWS = np.random.default_rng(0).uniform(-4, 4, (6, 2))


def circuit() -> Circuit:
    x, y = Parameter("x"), Parameter("y")
    out = Circuit(3, name="rows")
    out.ry(x, 0).ry(0.4, 1).cx(0, 1).rx(2 * y - x + 0.3, 1).t(1).rz(y, 2).h(2).cx(1, 2).ry(0.8, 2)
    return out


def in_turns(source: Circuit) -> Circuit:
    return rewrite_leaves(source, lowered)


def apart(a: Circuit, b: Circuit) -> float:
    u, v = unitary(a), unitary(b)
    overlap = np.vdot(v, u)
    return float(np.linalg.norm(u - v * overlap / abs(overlap), 2))


def allocated(
    text: str, rows: np.ndarray | None = None
) -> tuple[Circuit, tuple[float, ...], Context]:
    program, context = Program.of_circuit(circuit()), Context(verify_each=True)
    if rows is not None:
        context.put(CircuitRows({"rows": AngleData(("Z0", "Z1*Z2"), None, rows)}))
    Pipeline.parse(f"allocate-angles{{{text},direct_t=0}},synthesize-rotations").run(
        program, context
    )
    new = program.only_circuit
    found = context.need(RowAccuracies, "allocate-angles").by_circuit["rows"]
    return new, tuple(found[turn.key] for turn in row_turns(new, None)), context


@pytest.mark.parametrize("epsilon", [0.2, 0.02, 1e-6])
def test_words_are_within_their_accuracy_on_every_row(epsilon: float) -> None:
    angles = np.random.default_rng(1).uniform(-9, 9, 12)
    found = with_words(angles, epsilon)
    assert found.errors.max() <= epsilon
    for k, angle in enumerate(angles):
        a, b, c, d = found.quaternions[k]
        made = np.array([[a - 1j * d, -1j * b - c], [-1j * b + c, a + 1j * d]])
        wanted = np.diag(np.exp(np.array([-0.5j, 0.5j]) * angle))
        phase = np.vdot(made, wanted)
        assert np.linalg.norm(made * phase / abs(phase) - wanted, 2) <= epsilon + 1e-9


def test_many_rows_share_few_words() -> None:
    found = with_words(np.linspace(-3, 3, 5000), 0.05)
    assert len(found.points) <= 4 * 2**7  # a grid of at least eps / 8 all around
    assert len(found.t_counts) == 5000


def test_all_rows_at_once_do_what_each_rows_own_gates_do() -> None:
    whole, accuracies = in_turns(circuit()), (0.1, 0.02, 0.01)
    together, rows = in_words(whole, ROWS, accuracies)
    counts = row_t_counts(whole, ROWS, accuracies)
    for k, row in enumerate(ROWS):
        own = bound_in_words(whole, row, accuracies)
        assert apart(together.bind(rows[k]), own) < 1e-12
        assert apart(whole.bind(row), own) <= 0.13
        assert own.stats().t_count == counts[k]
        assert not own.params
    with pytest.raises(UsageError, match="accuracies"):
        in_words(whole, ROWS, (0.1,))
    with pytest.raises(UsageError, match="other than rz"):
        in_words(circuit(), ROWS, accuracies)


def test_slopes_at_rotations_by_parameters_are_those_of_errors_about_every_axis() -> None:
    whole = in_turns(circuit())
    turns = row_turns(whole, ROWS)
    chains = chains_of(whole.run)
    data = AngleData(("Z0", "X1*Z2"), None, ROWS)
    effects = Effects(whole, chains, data, [turn.index[0] for turn in turns])
    exact = effects.values()
    assert exact == pytest.approx(
        expectations_from(circuit(), None, ROWS, data.observables), abs=1e-12
    )
    gradient, _ = effects.gradients()
    half = effects.angles.T / 2
    zero = np.zeros(len(ROWS))
    plain = [chain.target for chain in chains]
    plain += [np.stack([np.cos(h), zero, zero, np.sin(h)], axis=1) for h in half]
    for number in range(len(plain)):
        for axis in range(3):
            turn = np.zeros(4)
            turn[0], turn[1 + axis] = math.cos(1e-6), math.sin(1e-6)
            points = list(plain)
            points[number] = multiply(turn, points[number])
            slope = (effects.values(points) - exact) / 1e-6
            assert gradient[number, axis] == pytest.approx(slope, abs=1e-4)


def test_an_operator_norm_is_kept_on_every_row() -> None:
    new, accuracies, context = allocated("error=0.2")
    for row in ROWS:
        assert apart(circuit().bind(row), bound_in_words(new, row, accuracies)) <= 0.2
    assert sum(accuracies) < context.ledger.promised_norm <= 0.2


def test_a_change_of_observables_is_kept_on_the_rows_that_were_given() -> None:
    new, accuracies, _ = allocated("observable_error=0.05", ROWS)
    texts = ("Z0", "Z1*Z2")
    before = expectations_from(circuit(), None, ROWS, texts)
    after = expectations_from(*_split(in_words(new, ROWS, accuracies)), texts)
    assert np.abs(before - after).max() <= 0.05


def _split(found: tuple[Circuit, np.ndarray]) -> tuple[Circuit, None, np.ndarray]:
    return found[0], None, found[1]


def test_without_rows_only_the_norm_can_be_bounded() -> None:
    with pytest.raises(PassError, match="no rows of them") as error:
        allocated("observable_error=0.05")
    assert "--calib" in error.value.hint
    assert allocated("t=120")[1]


def test_t_gates_are_the_mean_over_rows() -> None:
    new, accuracies, _ = allocated("t=90", ROWS)
    mean = row_t_counts(new, ROWS, accuracies).mean()
    assert 60 < mean <= 92  # accuracies are some T apart, means are taken to the nearest


def test_accuracies_of_other_rotations_are_refused() -> None:
    program, context = Program.of_circuit(circuit()), Context()
    Pipeline.parse("allocate-angles{error=0.2}").run(program, context)
    program.circuits["rows"] = Circuit(1, name="rows").rz(Parameter("z"), 0)
    with pytest.raises(PassError, match="other rotations"):
        Pipeline.parse("synthesize-rotations").run(program, context)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> qcomp.Artifact:
    folder = tmp_path_factory.mktemp("rows") / "out"
    return qcomp.compile(
        circuit(), target="clifford+t", max_error=0.2, effort="fast", verify_each=True, out=folder,
        calibration={"params": ROWS},
    )  # fmt: skip


def test_a_compile_fixes_the_accuracies_and_says_what_rows_cost(artifact: qcomp.Artifact) -> None:
    (accuracies,) = artifact.accuracies.values()
    assert len(accuracies) == 3
    within, cost = artifact.report["checks"][:2]
    assert within["error"] <= 0.2
    assert "3 random rows" in within["how"]
    (compiled,) = artifact.circuits.values()
    counts = row_t_counts(compiled, ROWS, accuracies)
    assert cost["error"] == pytest.approx(counts.mean())
    assert f"{counts.min()} to {counts.max()}" in cost["how"]


def test_bind_writes_each_row_in_clifford_gates_and_t(
    artifact: qcomp.Artifact, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", params=ROWS)
    done = CliRunner().invoke(
        app,
        ["bind", str(artifact.path), "--input", str(tmp_path / "x.npz"), "-o", str(tmp_path / "b")],
    )
    assert done.exit_code == 0, done.output
    index = json.loads((tmp_path / "b" / "bind.json").read_text())
    (files,) = index["circuits"].values()
    values = artifact(ROWS)
    basis = {*"hxyzst", "sdg", "tdg", "cx"}
    for k, file in enumerate(files):
        own = Circuit.from_qasm((tmp_path / "b" / file).read_text())
        assert {name for name, _, _ in own.run.operations()} <= basis
        assert apart(circuit().bind(ROWS[k]), own) <= 0.2
        state = unitary(own)[:, 0]
        assert np.abs(state) ** 2 == pytest.approx(np.ravel(values[k]), abs=1e-9)


def test_only_the_simulator_runs_rows_with_words_of_their_own(artifact: qcomp.Artifact) -> None:
    with pytest.raises(UsageError, match="cannot run this artifact") as error:
        artifact(ROWS, device="aer")
    assert "qcomp bind" in error.value.hint
    from qcomp.submit.plan import plan

    with pytest.raises(UsageError, match="words of their own"):
        plan(artifact, {"params": ROWS}, None)


def test_a_broken_promise_on_rows_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from qcomp.passes.reduce.merge_rotations import MergeRotations

    plain = MergeRotations.run

    def broken(self: MergeRotations, old: Circuit, context: object) -> Circuit:
        new = plain(self, old, context)  # type: ignore[arg-type]
        return new.copy(body=(Run.concat([*new.runs(), Circuit(3).x(0).run]),))

    monkeypatch.setattr(MergeRotations, "run", broken)
    with pytest.raises(PassError, match="promised"):
        qcomp.compile(circuit(), target="clifford+t", max_error=0.1, out=tmp_path / "out",
                      effort="fast")  # fmt: skip
    assert not (tmp_path / "out").exists()
