"""Compiling for Clifford+T under a limit: what is promised, spent and measured, and bad input."""

import math
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.cli.main import app
from qcomp.errors import PassError, SourceError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.run import Run
from qcomp.simulate import unitary
from qcomp.simulate.from_states import expectations_from


def circuit() -> Circuit:
    out = Circuit(3, name="ansatz")
    for q, angle in enumerate((0.31, -1.3, 0.5)):
        out.ry(angle, q).rz(angle / 2, q)
    out.cx(0, 1).cx(1, 2).rx(0.9, 0).rz(0.01, 1).t(2)
    return out


def result_of(artifact: qcomp.Artifact) -> Circuit:
    (path,) = Path(artifact.path).rglob("*.qasm")
    return Circuit.from_qasm(path.read_text())


def t_count(artifact: qcomp.Artifact) -> int:
    return int(artifact.report["circuits"][0]["after"]["t_count"])


@pytest.mark.parametrize("effort", ["fast", "default"])
def test_max_error_is_kept_and_reported(effort: str) -> None:
    artifact = qcomp.compile(
        circuit(), target="clifford+t", max_error=1e-2, effort=effort, verify_each=True
    )
    new = result_of(artifact)
    apart = unitary(circuit()).conj().T @ unitary(new)
    phase = np.trace(apart) / abs(np.trace(apart))
    measured = np.linalg.norm(apart - phase * np.eye(8), 2)
    assert measured <= 1e-2
    assert {name for name, _, _ in new.run.operations()} <= {*"hxyzst", "sdg", "tdg", "cx"}
    (line,) = [x for x in artifact.report["budget"] if x["kind"] == "approximation"]
    assert line["spent"] <= line["promised"] <= 1e-2
    check = artifact.report["checks"][0]
    assert check["result"] == "measured"
    assert check["error"] == pytest.approx(measured, abs=1e-7)
    assert "promised 0.01" in check["how"]


def test_max_observable_error_is_kept_on_all_states_with_fewer_t() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(12, 8))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    artifact = qcomp.compile(
        circuit(),
        target="clifford+t",
        max_observable_error="1%",
        observables=["Z0", "Z1*Z2"],
        states=states,
        effort="fast",
    )
    values = [expectations_from(c, states, None, ["Z0", "Z1*Z2"])
              for c in (circuit(), result_of(artifact))]  # fmt: skip
    measured = np.abs(values[0] - values[1]).max()
    assert measured <= 0.01
    assert artifact.report["checks"][0]["error"] == pytest.approx(measured, abs=1e-9)
    norm = qcomp.compile(circuit(), target="clifford+t", max_error=0.01, effort="fast")
    assert t_count(artifact) < t_count(norm)


def test_max_t_is_kept() -> None:
    artifact = qcomp.compile(circuit(), target="clifford+t", max_t=40)
    assert 0 < t_count(artifact) <= 40
    assert artifact.report["checks"][0]["error"] < 0.5


def test_an_exact_circuit_needs_no_limit_and_stays_exact_under_one() -> None:
    exact = Circuit(2).h(0).t(0).cx(0, 1).rz(3 * math.pi / 4, 1)
    for limit in ({}, {"max_error": 0.1}):
        artifact = qcomp.compile(exact, target="clifford+t", **limit)
        assert np.allclose(unitary(result_of(artifact)), unitary(exact))
        assert artifact.report["checks"][0]["result"] != "failed"


def test_wide_circuits_are_known_by_what_was_spent() -> None:
    wide = Circuit(12)
    for q in range(12):
        wide.ry(0.1 + q, q)
    artifact = qcomp.compile(wide, target="clifford+t", max_error=0.3, effort="fast")
    check = artifact.report["checks"][0]
    assert "errors added" in check["how"]
    assert check["error"] <= 0.3


def test_a_compile_that_breaks_its_promise_writes_nothing(
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


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_error": 1e-3, "max_t": 10}, "contradict"),
        ({"max_error": 1e-3, "max_observable_error": 0.1}, "contradict"),
        ({"max_error": "much"}, "between 0 and 2"),
        ({"max_error": 0}, "between 0 and 2"),
        ({"max_t": -3}, "whole number"),
        ({"max_t": "1.5"}, "whole number"),
        ({"observables": ["Z0"]}, "for a limit"),
        ({"max_error": 1e-3, "observables": ["Z0"]}, "operator norm"),
        ({"max_observable_error": 0.1, "observables": ["Q0"]}, "no observable"),
        ({"max_observable_error": 0.1, "states": np.ones((2, 5))}, "states"),
        ({"max_observable_error": 0.1, "states": np.ones((0, 8))}, "no states"),
        ({"max_error": 0.1, "pipeline": "merge-rotations"}, "contradict"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        qcomp.compile(circuit(), target="clifford+t", effort="fast", **limits)  # type: ignore[arg-type]


def test_limits_are_for_machines_without_rotations() -> None:
    with pytest.raises(UsageError, match="rotations of any angle"):
        qcomp.compile(circuit(), target="ibm-heron", max_error=1e-3)


def test_files_without_states_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    (tmp_path / "text.npz").write_text("no arrays")
    for name in ("other.npz", "text.npz", "missing.npz"):
        with pytest.raises(SourceError, match="states"):
            qcomp.compile(circuit(), target="clifford+t", max_observable_error=0.1,
                          states=tmp_path / name)  # fmt: skip


def test_without_a_limit_other_angles_are_refused_with_the_way_out() -> None:
    with pytest.raises(qcomp.QcompError) as error:
        qcomp.compile(circuit(), target="clifford+t")
    assert "--max-error" in error.value.hint


def test_the_command_line_takes_the_limits(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    (tmp_path / "a.qasm").write_text(circuit().to_qasm3())
    np.savez(tmp_path / "states.npz", states=np.eye(8)[:2])
    call = ["compile", str(tmp_path / "a.qasm"), "-t", "clifford+t", "-o", str(tmp_path / "out"),
            "--effort", "fast"]  # fmt: skip
    for more in (
        ["--max-error", "0.05"],
        ["--max-observable-error", "0.05", "--observable", "Z0", "--states",
         str(tmp_path / "states.npz")],
        ["--max-t", "60"],
    ):  # fmt: skip
        done = CliRunner().invoke(app, [*call, *more])
        assert done.exit_code == 0, done.output
        assert "within its budget" in done.output
        assert "t_count" in done.output
