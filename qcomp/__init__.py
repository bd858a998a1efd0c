"""From model graphs to quantum circuits and quantized kernels.

The library in one breath::

    program = qcomp.read("model.onnx")
    artifact = qcomp.compile("model.onnx", target="cpu-int8", calibration="data.npz")
    y = artifact(x)
    smaller = qcomp.optimize(circuit, effort="default")
    verdict = qcomp.verify("a.qasm", "b.qasm")
    reward = qcomp.judge(text_of_a_circuit, "reference.qasm").score

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcomp import nn as nn
    from qcomp.cost import CostModel
    from qcomp.driver import compile, judge, optimize, read, verify
    from qcomp.equivalence.layered import Judgement
    from qcomp.errors import PassError, QcompError, SourceError, TargetError, UsageError
    from qcomp.ir.angle import Parameter, pi_fraction
    from qcomp.ir.circuit import Circuit
    from qcomp.ir.observable import Observable
    from qcomp.ir.program import Program
    from qcomp.quantum_kernel import QuantumKernel
    from qcomp.runtime.artifact import Artifact, load

__version__ = "0.1.0"

_PLACES = {
    "Artifact": "qcomp.runtime.artifact",
    "Circuit": "qcomp.ir.circuit",
    "CostModel": "qcomp.cost",
    "Judgement": "qcomp.equivalence.layered",
    "Observable": "qcomp.ir.observable",
    "Parameter": "qcomp.ir.angle",
    "PassError": "qcomp.errors",
    "Program": "qcomp.ir.program",
    "QuantumKernel": "qcomp.quantum_kernel",
    "QcompError": "qcomp.errors",
    "SourceError": "qcomp.errors",
    "TargetError": "qcomp.errors",
    "UsageError": "qcomp.errors",
    "compile": "qcomp.driver",
    "judge": "qcomp.driver",
    "load": "qcomp.runtime.artifact",
    "optimize": "qcomp.driver",
    "pi_fraction": "qcomp.ir.angle",
    "read": "qcomp.driver",
    "verify": "qcomp.driver",
}

__all__ = [
    "Artifact",
    "Circuit",
    "CostModel",
    "Judgement",
    "Observable",
    "Parameter",
    "PassError",
    "Program",
    "QcompError",
    "QuantumKernel",
    "SourceError",
    "TargetError",
    "UsageError",
    "compile",
    "judge",
    "load",
    "optimize",
    "pi_fraction",
    "read",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    from importlib import import_module

    if name == "nn":
        return import_module("qcomp.nn")
    if name not in _PLACES:
        raise AttributeError(f"module 'qcomp' has no attribute '{name}'")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
