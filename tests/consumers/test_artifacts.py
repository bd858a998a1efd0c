"""Compiled and mapped circuits: the artifact's text is taken by those that its profile names."""

from pathlib import Path

import pytest

import qcomp
from qcomp.backends.openqasm3.profiles import PROFILES
from qcomp.consumers import CONSUMERS, accept
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.target import get_target


def star(params: bool) -> Circuit:
    """A circuit that no lattice has as it is: one qubit coupled to three others."""
    circuit = Circuit(4, 4, params=("a",) if params else ())
    angle = 0.5 * Parameter("a") + 0.3 if params else 0.8
    for q in range(4):
        circuit.ry(0.3 + q, q)
    for q in range(1, 4):
        circuit.cx(0, q).rz(angle, q).cx(0, q)
    for q in range(4):
        circuit.rx(0.7, q).measure(q, 3 - q)
    return circuit


@pytest.mark.parametrize("params", [False, True])
@pytest.mark.parametrize(
    ("target", "device"),
    [
        ("ibm-heron", "fake_torino"),
        ("ibm-eagle", "line-5"),
        ("iqm-garnet", None),
        ("ionq-aria", None),
        ("rigetti-ankaa", "grid-3x3"),
    ],
)
def test_an_artifacts_text_means_what_was_compiled(
    target: str, device: str | None, params: bool, tmp_path: Path
) -> None:
    circuit = star(params)
    artifact = qcomp.compile(
        circuit, target=target, device=device, effort="fast", out=tmp_path / "out"
    )
    (path,) = artifact.path.glob("*.qasm")
    text = path.read_text()
    profile = PROFILES[get_target(target).profile]
    judged = (profile.judge,) if profile.judge and "verbatim" in text else ()
    assert bool(judged) == bool(profile.judge)
    for name in (*profile.consumers, *judged):
        if not CONSUMERS[name].installed:
            pytest.skip(f"the package of the consumer '{name}' is not installed")
        found = accept(text, name, wanted=circuit)
        assert found.accepted, str(found)
        assert found.distance is not None, str(found)
        assert found.ok, str(found)
