"""What the tests of the OpenQASM reader share: reading by the grammar alone, and looking inside."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.interpreter import Reading, interpret
from qcomp.frontends.openqasm.parser import decode, parse
from qcomp.ir.blocks import Block
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import NUM_ANGLES
from qcomp.ir.run import Run
from qcomp.ir.transform import operation_angles
from qcomp.ir.verify import verify

Operation = tuple[str, tuple[int, ...], tuple[float, ...]]


def reading(
    text: str | bytes, *, folder: Path | None = None, inputs: Mapping[str, float] | None = None
) -> Reading:
    """Read through the grammar, never the scanner, and check that the circuit is well-formed."""
    source = decode(text) if isinstance(text, bytes) else text
    result = interpret(parse(source), folder=folder, inputs=inputs)
    verify(result.circuit)
    return result


def read(
    text: str, *, folder: Path | None = None, inputs: Mapping[str, float] | None = None
) -> Circuit:
    return reading(text, folder=folder, inputs=inputs).circuit


def block_operations(circuit: Circuit, block: Block) -> list[Operation]:
    """The operations of the runs directly in a block, with their angles in radians."""
    found: list[Operation] = []
    for item in block:
        if not isinstance(item, Run):
            continue
        for i, (name, qubits, first) in enumerate(item.operations()):
            angles = () if first < 0 else operation_angles(circuit, item, i)
            assert len(angles) == int(NUM_ANGLES[item.code[i]])
            found.append((name, qubits, tuple(float(a) for a in angles)))
    return found


def operations(text: str, *, inputs: Mapping[str, float] | None = None) -> list[Operation]:
    circuit = read(text, inputs=inputs)
    return block_operations(circuit, circuit.body)


def names(text: str) -> list[str]:
    return [name for name, _, _ in operations(text)]


def error(text: str | bytes, *, folder: Path | None = None) -> SourceError:
    """The error of a source, which must have a place."""
    with pytest.raises(SourceError) as caught:
        reading(text, folder=folder)
    assert caught.value.line >= 1
    assert caught.value.column >= 1
    return caught.value
