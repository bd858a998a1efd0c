"""A small simulator under torchquantum's names, for tests where torchquantum is not installed.

It has what ``classifier`` of ``tests/data/make_torchquantum.py`` uses, in the places where
torchquantum has it. What it computes is compared with values recorded from torchquantum itself.
"""

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

_H = torch.tensor([[1, 1], [1, -1]], dtype=torch.complex64) / 2**0.5
_Z = torch.diag(torch.tensor([1, -1], dtype=torch.complex64))
_X = torch.tensor([[0, 1], [1, 0]], dtype=torch.complex64)
_CNOT = torch.block_diag(torch.eye(2), _X.real).to(torch.complex64)


def _turn(pauli: torch.Tensor) -> Any:
    def matrix(angles: torch.Tensor) -> torch.Tensor:
        half = angles.to(torch.complex64)[:, :1, None] / 2
        return torch.cos(half) * torch.eye(2) - 1j * torch.sin(half) * pauli

    return matrix


def _u3(angles: torch.Tensor) -> torch.Tensor:
    theta, phi, lam = angles.to(torch.complex64).T
    cos, sin = torch.cos(theta / 2), torch.sin(theta / 2)
    first = torch.stack([cos, -torch.exp(1j * lam) * sin], -1)
    second = torch.stack([torch.exp(1j * phi) * sin, torch.exp(1j * (phi + lam)) * cos], -1)
    return torch.stack([first, second], -2)


_MATRICES: dict[str, Any] = {
    "rx": _turn(_X),
    "ry": _turn(1j * _X @ _Z),
    "u3": _u3,
    "hadamard": _H,
    "cnot": _CNOT,
}


def gate_wrapper(
    name: str,
    mat: Any,
    method: str,
    q_device: Any,
    wires: Any,
    params: Any = None,
    n_wires: Any = None,
    static: bool = False,
    parent_graph: Any = None,
    inverse: bool = False,
) -> None:
    if callable(mat):
        angles = torch.as_tensor(params, dtype=torch.float32)
        mat = mat(angles if angles.dim() == 2 else angles.reshape(-1, 1))
    mat = mat.mH if inverse else mat
    axes = [wire + 1 for wire in ([wires] if isinstance(wires, int) else wires)]
    states = q_device.states.movedim(axes, list(range(1, len(axes) + 1)))
    new = mat @ states.reshape(len(states), mat.shape[-1], -1)
    q_device.states = new.reshape(states.shape).movedim(list(range(1, len(axes) + 1)), axes)


def _function(name: str) -> Any:
    def gate(
        device: Any, wires: Any, params: Any = None, n_wires: Any = None, inverse: bool = False
    ) -> None:
        gate_wrapper(name, _MATRICES[name], "bmm", device, wires, params, n_wires, inverse=inverse)

    return gate


class QuantumDevice(torch.nn.Module):
    def __init__(
        self, n_wires: int, device_name: str = "default", bsz: int = 1, device: Any = "cpu"
    ) -> None:
        super().__init__()
        self.n_wires = n_wires
        self.register_buffer("state", torch.zeros([2] * n_wires, dtype=torch.complex64))
        self.state.view(-1)[0] = 1
        self.register_buffer("states", torch.zeros(0))
        self.reset_states(bsz)

    def reset_states(self, bsz: int) -> None:
        self.states = self.state.repeat(bsz, *[1] * self.n_wires)

    def get_states_1d(self) -> torch.Tensor:
        return self.states.reshape(len(self.states), -1)

    rx = _function("rx")


class QuantumModule(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.static_mode = False
        self.noise_model_tq = None


class QuantumModuleList(torch.nn.ModuleList, QuantumModule):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)


class Operator(QuantumModule):
    count = 0
    func: Any = None
    n_wires: int | None = None

    def __init__(
        self, has_params: bool = False, trainable: bool = False, inverse: bool = False
    ) -> None:
        super().__init__()
        self.params = torch.nn.Parameter(torch.rand(1, self.count)) if has_params else None
        self.wires, self.inverse = None, inverse

    def forward(self, device: Any, wires: Any = None) -> None:
        self.func(device, wires, params=self.params, inverse=self.inverse)


class Observable(Operator):
    eigenvalues = (1.0, -1.0)

    def diagonalizing_gates(self) -> list[Operator]:
        return []


def _operator(name: str, function: str, count: int) -> type:
    members = {"count": count, "func": staticmethod(_function(function))}
    return type(name, (Operator,), members)


class GeneralEncoder(QuantumModule):
    def __init__(self, func_list: list[dict[str, Any]]) -> None:
        super().__init__()
        self.func_list = func_list

    def forward(self, device: Any, x: torch.Tensor) -> None:
        for info in self.func_list:
            angles = x[:, info["input_idx"]] if "input_idx" in info else None
            _function(info["func"])(device, info["wires"], angles)


def expval(qdev: Any, wires: Any, observables: Any) -> torch.Tensor:
    weights = qdev.states.abs() ** 2
    values = []
    for wire, observable in zip(wires, observables, strict=True):
        marginal = weights.movedim(wire + 1, 1).reshape(len(weights), 2, -1).sum(-1)
        values.append(marginal @ torch.tensor(observable.eigenvalues))
    return torch.stack(values, -1)


def expval_joint_analytical(qdev: Any, observable: str) -> torch.Tensor:
    paulis = {"I": torch.eye(2), "X": _X, "Y": 1j * _X @ _Z, "Z": _Z}
    matrix = torch.ones(1, 1, dtype=torch.complex64)
    for letter in observable:
        matrix = torch.kron(matrix, paulis[letter].to(torch.complex64))
    states = qdev.get_states_1d()
    return (states.conj() * (states @ matrix.T)).sum(-1).real


class MeasureAll(QuantumModule):
    def __init__(self, obs: type) -> None:
        super().__init__()
        self.obs = obs

    def forward(self, qdev: Any) -> torch.Tensor:
        return expval(qdev, list(range(qdev.n_wires)), [self.obs()] * qdev.n_wires)


QuantumModule.__module__ = "torchquantum.module.modules"
for _kind in (QuantumDevice, QuantumModuleList, Operator, Observable, GeneralEncoder, MeasureAll):
    _kind.__module__ = "torchquantum"


@contextlib.contextmanager
def installed() -> Iterator[Any]:
    """Let the stand-in be torchquantum, and hide one that is imported."""
    tq: Any = types.ModuleType("torchquantum")
    for kind in (QuantumDevice, QuantumModule, QuantumModuleList, Operator, GeneralEncoder):
        setattr(tq, kind.__name__, kind)
    tq.MeasureAll = MeasureAll
    tq.RX, tq.RY = _operator("RX", "rx", 1), _operator("RY", "ry", 1)
    tq.U3, tq.CNOT = _operator("U3", "u3", 3), _operator("CNOT", "cnot", 0)
    tq.PauliZ = type("PauliZ", (Observable,), {})
    tq.Hadamard = type("Hadamard", (Observable,), {})
    tq.expval, tq.expval_joint_analytical = expval, expval_joint_analytical
    places = {"torchquantum": tq}
    for name in ("functional.gate_wrapper", "measurement.measurements"):
        places[f"torchquantum.{name}"] = sys.modules[__name__]
    before = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "torchquantum"}
    for name in before:
        del sys.modules[name]
    sys.modules.update(places)
    try:
        yield tq
    finally:
        for name in places:
            del sys.modules[name]
        sys.modules.update(before)
