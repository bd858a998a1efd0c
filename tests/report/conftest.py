"""A report with every section, for the tests of its forms."""

import math
from collections.abc import Callable

import pytest

from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.report.collect import circuit_section
from qcomp.report.data import (
    AccuracyLine,
    BudgetLine,
    CheckLine,
    FileLine,
    FloatLine,
    FusionLine,
    LayerLine,
    PassLine,
    Quantization,
    Report,
    Sizes,
    SourceLine,
    TargetLine,
)


def layered(num_qubits: int = 8, layers: int = 2) -> Circuit:
    """A circuit of rotations and rings of CX."""
    circuit = Circuit(num_qubits, name="quantum_layer")
    for q in range(num_qubits):
        circuit.ry(Parameter(f"x{q}"), q)
    for layer in range(layers):
        for q in range(num_qubits):
            circuit.rz(Parameter(f"w{layer}_{q}") + pi_fraction(1, 2), q)
            circuit.sx(q)
        for q in range(num_qubits):
            circuit.cz(q, (q + 1) % num_qubits)
    return circuit.measure_all()


def full_report(num_layers: int = 5, name: str = "layer") -> Report:
    """A report with every section filled; ``name`` goes wherever a user's names go."""
    counts = [
        {"nodes": 14, "weight_bytes": 412_000, "gates": 168, "two_qubit": 48, "depth": 61},
        {"nodes": 9, "weight_bytes": 412_000, "gates": 168, "two_qubit": 48, "depth": 61},
        {"nodes": 9, "weight_bytes": 412_000, "gates": 120, "two_qubit": 48, "depth": 44},
        {"nodes": 9, "weight_bytes": 412_000, "gates": 131, "two_qubit": 32, "depth": 39},
        {"nodes": 21, "weight_bytes": 104_200, "gates": 131, "two_qubit": 32, "depth": 39},
    ]
    passes = ["fold-constants", "merge-rotations", "to-basis{gates=[cz,rz,sx,x]}"]
    records = [
        PassLine(text, 0.01 * (i + 1), True, counts[i], counts[i + 1], "unitary compared, exact")
        for i, text in enumerate(passes)
    ]
    records.append(PassLine("cancel-inverses", 0.002, False, counts[3], counts[3]))
    records.append(PassLine("quantize-static{bits=8}", 1.25, True, counts[3], counts[4]))
    layers = tuple(
        LayerLine(
            f"/{name}{i}/Conv",
            "Conv",
            "static",
            "s8",
            math.inf if i == 1 else 42.5 + 2 * math.sin(i),
            30.25 - 0.1 * i,
        )
        for i in range(num_layers)
    )
    circuit = layered()
    check = CheckLine(
        f"the circuit '{name}'",
        "state vectors compared on 16 random parameter rows",
        "measured",
        3.2e-15,
        "largest amplitude difference",
    )
    return Report(
        title=f"{name} digits compiled",
        source=SourceLine(f"{name}.onnx", "onnx", 431_204, "ab" * 32),
        targets=(
            TargetLine("cpu-int8", "INT8 on a CPU", "graph", (), "default", "quantize-static"),
            TargetLine("ibm-heron", "IBM Heron", "circuit", ("cz", "rz", "sx", "x"), "default"),
        ),
        seed=7,
        cpu_seconds=3.41,
        versions={"qcomp": "0.1.0", "onnxruntime": "1.27.0"},
        sizes=Sizes(
            431_204,
            118_300,
            412_000,
            104_200,
            (FileLine("stage0.onnx", 110_000, "cd" * 32), FileLine(f"{name}.qasm", 8_300)),
        ),
        passes=tuple(records),
        quantization=Quantization(
            layers,
            (FloatLine(f"/{name}/Softmax", "Softmax", "its output lies in [0, 1]"),),
            {"logits": 31.5},
            256,
            "calibration",
            (FusionLine("QLinearConv", 5, 4, (f"/{name}3/Conv (runs as Conv)",)),),
        ),
        circuits=(
            circuit_section(
                name,
                circuit,
                before={**circuit.stats().to_dict(), "gates": 68, "two_qubit": 20},
                check=check,
            ),
        ),
        accuracy=(AccuracyLine("accuracy", 0.9722, 0.9694, 360),),
        checks=(
            CheckLine("outputs of the graph", "256 calibration samples", "measured", 0.021, "max"),
            CheckLine("merged rotations", "phase polynomials compared", "proved"),
            CheckLine("noise of the machine", "", "not checked"),
        ),
        budget=(
            BudgetLine("to-basis", "numeric", 1e-9, 2.5e-14, "operator norm"),
            BudgetLine("quantize-static", "approximation", 0.5, 0.28, "points of accuracy"),
        ),
        warnings=(f"the layer '{name}' has no calibration samples above 1",),
    )


@pytest.fixture(name="layered")
def _layered() -> Callable[..., Circuit]:
    return layered


@pytest.fixture(name="full_report")
def _full_report() -> Callable[..., Report]:
    return full_report
