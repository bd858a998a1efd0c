"""Write ``torchquantum.npz``: matrices of torchquantum's gates, and what a model of it gives.

Run with torchquantum 0.1.8 (``pip install --no-deps torchquantum==0.1.8``), in the repository's
root: ``python -m tests.data.make_torchquantum``. torchquantum imports parts of Qiskit that Qiskit 2
does not have, and other packages that its simulator never calls; :func:`original` gives it empty
modules in their places while it is imported, and takes them away again.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

FILE = Path(__file__).with_name("torchquantum.npz")
ABSENT = frozenset(
    "opt_einsum pathos qiskit qiskit_ibm_runtime qiskit_nature torchdiffeq torchpack "
    "torchvision".split()
)
ENCODER = [
    {"input_idx": [0], "func": "rx", "wires": [0]},
    {"input_idx": [1], "func": "ry", "wires": [1]},
    {"func": "hadamard", "wires": [2]},
    {"input_idx": [2, 0, 1], "func": "u3", "wires": [2]},
]


class _Empty(type):
    """A class that has every attribute, so that an import of any name succeeds."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        return cls


class _EmptyModule(types.ModuleType):
    __path__: ClassVar[list[str]] = []
    __all__: ClassVar[list[str]] = []
    __file__ = "empty/__init__.py"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Empty(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name.partition(".")[0] not in ABSENT:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def original() -> Any:
    """Return torchquantum, None where it is not installed."""
    if "torchquantum" in sys.modules:
        return sys.modules["torchquantum"]
    if importlib.util.find_spec("torchquantum") is None:
        return None
    import matplotlib.pyplot  # noqa: F401  these see the real packages
    import scipy.optimize  # noqa: F401

    finder = _Finder()
    before = {name: m for name, m in sys.modules.items() if name.partition(".")[0] in ABSENT}
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("torchquantum")
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.partition(".")[0] in ABSENT]:
            del sys.modules[name]
        sys.modules.update(before)


def classifier(tq: Any) -> torch.nn.Module:
    """Return a model on three wires, as its users write them, with fixed weights."""

    class Ansatz(tq.QuantumModule):
        def __init__(self) -> None:
            super().__init__()
            self.rotations = tq.QuantumModuleList(
                tq.RY(has_params=True, trainable=True) for _ in range(3)
            )
            self.turn = tq.U3(has_params=True, trainable=True, inverse=True)

        def forward(self, device: Any) -> None:
            self.q_device = device
            for wire, rotation in enumerate(self.rotations):
                rotation(device, wires=wire)
            for wire in range(2):
                tq.CNOT()(device, wires=[wire, wire + 1])
            self.turn(device, wires=2)
            device.rx(wires=0, params=0.3)

    class Classifier(tq.QuantumModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)
            self.encoder = tq.GeneralEncoder(ENCODER)
            self.ansatz = Ansatz()
            self.measure = tq.MeasureAll(tq.PauliZ)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            device = tq.QuantumDevice(n_wires=3, bsz=x.shape[0], device=x.device)
            self.encoder(device, torch.tanh(self.linear(x)) * torch.pi)
            self.ansatz(device)
            joint = tq.expval_joint_analytical(device, "XIY")
            return torch.cat([self.measure(device), joint.unsqueeze(-1)], dim=-1)

    model = Classifier()
    drawn = np.random.default_rng(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(drawn.uniform(-1.5, 1.5, tuple(parameter.shape))))
    return model


def main() -> None:
    """Write the file."""
    from qcomp.frontends.torchquantum_gates import GATES

    tq = original()
    matrices = {}
    for name, (count, width, _) in GATES.items():
        matrix = importlib.import_module("torchquantum.functional").mat_dict[name]
        if name == "multicnot":
            matrix = matrix(3)
        elif count:
            matrix = matrix(torch.tensor([[0.4 + 0.5 * i for i in range(count)]]))
        matrices[f"gate_{name}"] = matrix.numpy().astype(np.complex64)
        assert matrix.shape[-1] == 1 << (width or 3)
    rows = np.random.default_rng(6).normal(size=(6, 4)).astype(np.float32)
    values = classifier(tq)(torch.from_numpy(rows)).detach().numpy()
    np.savez_compressed(FILE, rows=rows, values=values, **matrices)


if __name__ == "__main__":
    main()
