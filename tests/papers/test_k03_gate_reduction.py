"""Gate reduction on Toffoli ladders: the T counts of Nam et al. 2018 (arXiv:1710.07345).

An AND of n wires by Toffolis into clean ancillas takes 2n - 3 of them, with borrowed ancillas
(Barenco et al. 1995, lemma 7.2) 4(n - 2). Seven T each; 71 and 100 of 119 and 224 stay at n = 10.
"""

import pytest

from qcomp import Circuit, optimize, verify


def clean(n: int) -> Circuit:
    """Return the AND of n controls into wire 2n - 2, ancillas n to 2n - 3 returned to zero."""
    circuit = Circuit(2 * n - 1)
    up = [(0, 1, n), *((k + 1, n + k - 1, n + k) for k in range(1, n - 2))]
    for step in (*up, (n - 1, 2 * n - 3, 2 * n - 2), *reversed(up)):
        circuit.ccx(*step)
    return circuit


def borrowed(n: int) -> Circuit:
    """Return the same with n - 2 ancillas in any state."""
    circuit = Circuit(2 * n - 1)
    first = [(0, 1, n), *((k + 1, n + k - 1, n + k) for k in range(1, n - 2))]
    last = (n - 1, 2 * n - 3, 2 * n - 2)
    for step in (last, *reversed(first), *first[1:], last, *reversed(first[1:]), *first):
        circuit.ccx(*step)
    return circuit


@pytest.mark.parametrize(
    ("circuit", "before", "after"),
    [
        (clean(3), 21, 15),
        (clean(4), 35, 23),
        (clean(5), 49, 31),
        (clean(10), 119, 71),
        (borrowed(3), 28, 16),
        (borrowed(5), 84, 40),
        (borrowed(10), 224, 100),
    ],
    ids=["tof_3", "tof_4", "tof_5", "tof_10", "barenco_3", "barenco_5", "barenco_10"],
)
def test_toffoli_ladders_keep_the_t_gates_that_are_known_to_be_needed(
    circuit: Circuit, before: int, after: int
) -> None:
    taken_apart = optimize(circuit, pipeline="to-basis{max_qubits=2}")
    assert taken_apart.stats().t_count == before
    small = optimize(circuit)
    assert small.stats().t_count == after
    assert verify(small, circuit).equal
