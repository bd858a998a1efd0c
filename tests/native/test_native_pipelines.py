"""The pipelines of machines: only native gates, the same circuit, few gates."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.errors import TargetError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.native_pipelines import for_native, one_qubit_form, pair_of
from qcomp.passmanager import Context, Pipeline
from tests.generators import straight_circuit
from tests.native.test_limits import BASES, within


def compiled(circuit: Circuit, text: str) -> Circuit:
    program = Program.of_circuit(circuit)
    Pipeline.parse(text).run(program, Context())
    return program.only_circuit


def qft(n: int) -> Circuit:
    circuit = Circuit(n, n)
    for i in range(n):
        circuit.h(i)
        for j in range(i + 1, n):
            circuit.cp(np.pi / 2 ** (j - i), i, j)
    for i in range(n):
        circuit.measure(i, i)
    return circuit


def qaoa(n: int) -> Circuit:
    circuit = Circuit(n, n, params=("g", "b"))
    for i in range(n):
        circuit.h(i)
    for i in range(n):
        circuit.rzz(2 * Parameter("g"), i, (i + 1) % n)
    for i in range(n):
        circuit.rx(2 * Parameter("b"), i)
    for i in range(n):
        circuit.measure(i, i)
    return circuit


MOST = {
    "ibm-fractional": (6, 8),
    "ibm-rzz": (6, 8),
    "ionq-aria": (6, 8),
    "ionq-forte": (6, 4),
    "rigetti-iswap": (12, 8),
    "rigetti-cz": (12, 8),
    "iqm": (12, 8),
    "quantinuum": (6, 4),
    "xy": (12, 8),
}
"""Machine -> most two-qubit gates of a Fourier transform on 4 qubits, and of one QAOA layer."""


@pytest.mark.parametrize("machine", MOST)
def test_circuits_get_native_gates_and_few_of_them(machine: str) -> None:
    gates, limits = BASES[machine]
    text = for_native(gates, limits)
    bits = "drop-dead-gates" in text
    for circuit, most in zip((qft(4), qaoa(4)), MOST[machine], strict=True):
        after = compiled(circuit, text)
        within(after, gates, limits)
        assert check(circuit, after, only_bits=bits).equal is True
        assert after.stats().two_qubit <= most
        if bits and circuit.params:
            # Pulses alone: what is left of turns about Z before measurements is dropped.
            assert after.stats().gates - after.stats().two_qubit <= 32


@pytest.mark.parametrize("machine", BASES)
def test_random_circuits_are_the_same_on_every_machine(machine: str) -> None:
    gates, limits = BASES[machine]
    for seed in range(2):
        circuit = straight_circuit(seed, 20)
        after = compiled(circuit, for_native(gates, limits, "fast"))
        within(after, gates, limits)
        assert check(circuit, after).equal is True


def test_a_fourier_transform_on_ions_needs_one_pulse_a_qubit() -> None:
    gates, limits = BASES["ionq-forte"]
    after = compiled(qft(4), for_native(gates, limits))
    names = [name for name, _, _ in after.run.operations()]
    assert names.count("gpi2") == 4
    assert names.count("gpi") == 0


def test_forms_and_pairs_of_machines() -> None:
    assert one_qubit_form(("prx", "cz")) == "rz-r"
    assert one_qubit_form(("rx", "rz", "iswap"), ("rx",)) == "rz-sx-x"
    assert one_qubit_form(("cz", "rz", "sx", "x", "rx", "rzz")) == "rz-sx-x-rx"
    assert [pair_of(BASES[name][0]) for name in ("iqm", "ionq-aria", "rigetti-iswap")] == [
        "cx", "rzz", "iswap",
    ]  # fmt: skip
    with pytest.raises(TargetError, match="make no turn by any angle"):
        one_qubit_form(("h", "t", "cx"))
