"""A QLSTM that forecasts a curve (Chen, Yoo, Fang 2020, arXiv:2009.01783), compiled and run."""

import sys
from pathlib import Path

import numpy as np
import torch
from curves import split

import qcomp
from qcomp.nn import QuantumLayer, Recurrent

QUBITS, HIDDEN, DEPTH = 4, 3, 2


def circuit() -> qcomp.Circuit:
    """H, RY(a), RZ(b) on each qubit; then layers of CX to distance 1 and 2 and free rotations."""
    made = qcomp.Circuit(QUBITS, name="vqc")
    for q in range(QUBITS):
        made.h(q).ry(qcomp.Parameter(f"a{q}"), q).rz(qcomp.Parameter(f"b{q}"), q)
    for layer in range(DEPTH):
        for q in range(2 * QUBITS):
            made.cx(q % QUBITS, (q % QUBITS + 1 + q // QUBITS) % QUBITS)
        for q in range(QUBITS):
            for kind, gate in enumerate((made.rz, made.ry, made.rz)):
                gate(qcomp.Parameter(f"w{layer}_{q}_{kind}"), q)
    return made


class Vqc(torch.nn.Module):
    """Values [B, 4] -> expectations of Z [B, out]; the angles are arctan(x) and arctan(x^2)."""

    def __init__(self, out: int = QUBITS) -> None:
        super().__init__()
        angles = [f"{letter}{q}" for letter in "ab" for q in range(QUBITS)]
        weights = np.random.default_rng(int(torch.randint(1 << 30, ()))).uniform(-1.6, 1.6, 24)
        self.layer = QuantumLayer(circuit(), angles, [f"Z{q}" for q in range(out)], weights=weights)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([torch.atan(v), torch.atan(v * v)], dim=-1))


class QlstmCell(torch.nn.Module):
    """The LSTM's gates as circuits, and two more for the state and the output."""

    def __init__(self) -> None:
        super().__init__()
        self.forget, self.update, self.candidate, self.out = (Vqc() for _ in range(4))
        self.state, self.output = Vqc(HIDDEN), Vqc()

    def forward(self, x: torch.Tensor, state: tuple) -> tuple:
        h, c = state
        v = torch.cat([h, x], dim=-1)
        new = torch.sigmoid(self.update(v)) * torch.tanh(self.candidate(v))
        c = torch.sigmoid(self.forget(v)) * c + new
        out = torch.sigmoid(self.out(v)) * torch.tanh(c)
        h = self.state(out)
        return torch.cat([h, self.output(out)], dim=-1), (h, c)


class Forecaster(torch.nn.Module):
    """Sequences [B, T, 1] -> (forecasts [B, 1], hidden states of all steps [B, T, 3])."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = Recurrent(QlstmCell(), (HIDDEN, QUBITS), returns_output=True)
        self.head = torch.nn.Linear(QUBITS, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, _ = self.recurrent(x)
        return self.head(outputs[:, -1, HIDDEN:]), outputs[..., :HIDDEN]


def trained(name: str) -> Forecaster:
    """The forecaster of a curve with the weights that train.py found."""
    model = Forecaster()
    with np.load(Path(__file__).parent / "weights.npz") as data:
        model.load_state_dict({key: torch.tensor(data[f"{name}/qlstm/{key}"])
                               for key in model.state_dict()})  # fmt: skip
    return model.eval()


def main(name: str = "pendulum") -> None:
    x, _, x_test, y_test = split(name)
    artifact = qcomp.compile(
        trained(name),
        x[:2],
        target="cpu-int8+ibm-heron",
        dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=2)},),
        output_names=["forecast", "hidden"],
        calibration={"x": x[::4].numpy()},
        out=f"out/qlstm-{name}",
    )
    error = np.mean((artifact(x_test)["forecast"] - y_test.numpy()) ** 2)
    print(f"{name}: mean squared error {error:.2e}, artifact in {artifact.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
