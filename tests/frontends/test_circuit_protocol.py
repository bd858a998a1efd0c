"""The protocol ``__qcomp_circuit__``: a layer of any library states its circuit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import qcomp
from qcomp.errors import SourceError
from qcomp.frontends.circuit_protocol import capture_protocol
from qcomp.ir.program import Readout

torch.set_num_threads(1)

QASM = """OPENQASM 3.0;
include "stdgates.inc";
input float[64] a0;
input float[64] a1;
input float[64] w0;
input float[64] w1;
qubit[2] q;
ry(a0) q[0];
ry(a1) q[1];
cx q[0], q[1];
ry(w0) q[0];
ry(2*w1) q[1];
"""


class StateLayer(torch.nn.Module):
    """Somebody's layer: it multiplies matrices itself, with noise as long as ``noisy`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = torch.nn.Parameter(torch.rand(2, 2))
        self.weights = torch.nn.Parameter(torch.rand(2))
        self.noisy = True

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        return self.exactly(x, scale=scale) + 0.1 * self.noisy

    def exactly(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        a = torch.atan(x @ self.mixing) * scale

        def turned(angle: torch.Tensor) -> torch.Tensor:
            c, s = torch.cos(angle / 2), torch.sin(angle / 2)
            return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)

        zero, one = turned(a[:, 0])[..., 0], turned(a[:, 1])[..., 0]
        state = torch.einsum("bi,bj->bij", zero, one)
        state = torch.stack([state[:, 0], state[:, 1].flip(-1)], 1)
        state = torch.einsum("ik,bkj->bij", turned(self.weights[0]), state)
        state = torch.einsum("jk,bik->bij", turned(2 * self.weights[1]), state)
        p = state**2
        return 1 - (p[:, 0].sum(-1) - p[:, 1].sum(-1)) * 3

    def __qcomp_circuit__(self) -> tuple[Any, ...]:
        def angles(x: torch.Tensor, *, scale: float = 1.0) -> list[torch.Tensor]:
            return [torch.atan(x @ self.mixing) * scale, self.weights]

        return QASM, angles, ["Z0"], lambda values: 1 - values[..., 0] * 3

    def __qcomp_reference__(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        return self.exactly(x, scale=scale)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = torch.nn.Linear(4, 2)
        self.state = StateLayer()
        self.back = torch.nn.Linear(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.back(self.state(torch.relu(self.front(x)), scale=0.5)[:, None])


def test_a_foreign_layer_that_states_its_circuit_compiles_and_runs() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    artifact = qcomp.compile(
        model,
        target="cpu-int8+ibm-heron",
        example_inputs=torch.zeros(1, 4),
        calibration={"x": x},
    )
    model.state.noisy = False
    with torch.no_grad():
        want = model(torch.from_numpy(x)).numpy()
    assert len(artifact.circuits) == 1
    assert np.abs(artifact(x) - want).max() < 0.2
    assert np.abs(artifact(x) - want).mean() < 0.02
    checks = [c for c in artifact.report["checks"] if "'state' (StateLayer)" in c["what"]]
    assert ["float32" in check["how"] for check in checks] == [True, False]
    assert all(check["result"] == "measured" for check in checks)
    assert checks[1]["error"] < 1e-9


def test_what_a_layer_states_wrongly_is_told() -> None:
    layer = StateLayer()
    cases: list[tuple[Any, str]] = [
        ((QASM, lambda x: x), "must return"),
        ((QASM, lambda x: x, ["Z0"], None), "2 angles for 4 parameters"),
        ((QASM, lambda x: x.long(), ["Z0"], None), "floating-point"),
        ((QASM, lambda x: x, ["Z2"], None), "reads qubit 2 of a circuit of 2"),
        ((QASM, lambda x: x, ["Q2"], None), "no observable"),
        ((QASM, lambda x: x, 7, None), "no readout"),
        ((QASM, lambda x: x, Readout("state"), None), "cannot read 'state'"),
        ((QASM, None, "probs", None), "must be a function"),
        (("OPENQASM 3.0; qubit[1] q;", lambda x: x, "probs", None), "no parameters"),
        ((3, lambda x: x, "probs", None), "is no circuit"),
    ]
    for stated, why in cases:
        kind = type("Stating", (StateLayer,), {"__qcomp_circuit__": lambda self, s=stated: s})
        layer = kind()
        with pytest.raises(SourceError, match=r"Stating\.__qcomp_circuit__") as stop:
            capture_protocol(layer, (), {})(torch.zeros(3, 2))
        assert why in stop.value.why
        assert "docs/hybrid.md" in stop.value.hint
