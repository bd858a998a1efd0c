"""resynthesize-windows: frames on three qubits, signed Paulis, windows and what they become."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, G, gate
from qcomp.passes.synthesize.clifford_chains import Op, merged, quarter_turns
from qcomp.passes.synthesize.frames import MOVES, frame_table, shortest_network
from qcomp.passes.synthesize.signed_paulis import PARTS, Pulled, local_cliffords, on_qubit
from qcomp.passes.synthesize.windows import ResynthesizeWindows
from qcomp.passmanager import Context
from tests.ir.dense import dense

Matrix = NDArray[np.complex128]


def shortened(circuit: Circuit, searches: int = 5000, room: int = 8192) -> Circuit:
    # CX gates at any price.
    result = ResynthesizeWindows(searches, room, two_qubit=1000.0).run(circuit, Context())
    if not np.isin(circuit.run.code, [G.MEASURE, G.RESET]).any():
        for value in (0.0, 0.7321, -2.3):
            values = dict.fromkeys(circuit.params, value)
            assert np.abs(dense(circuit, **values) - dense(result, **values)).max() < 1e-12
    return result


def two(circuit: Circuit) -> int:
    return circuit.stats().two_qubit


def random_circuit(rng: np.random.Generator, gates: int, names: tuple[str, ...]) -> Circuit:
    circuit = Circuit(3, params=("a", "b"))
    for _ in range(gates):
        row = gate(str(rng.choice(names)))
        angles = [Parameter(str(rng.choice(["a", "b"]))) * 2.0 for _ in range(row.num_angles)]
        circuit.append(row.name, rng.permutation(3)[: row.num_qubits].tolist(), angles)
    return circuit


def pauli(bits: int) -> Matrix:
    out: Matrix = np.eye(1, dtype=complex)
    for q in (2, 1, 0):
        name = ("id", "x", "z", "y")[(bits >> q & 1) + 2 * (bits >> (q + 3) & 1)]
        out = np.kron(out, gate(name).matrix())
    return out


def cx_distance(table_following: NDArray[np.int64]) -> list[int]:
    distance, reached = {0: 0}, [0]
    for frame in reached:
        for other in table_following[frame].tolist():
            if other not in distance:
                distance[other] = distance[frame] + 1
                reached.append(other)
    return [distance[f] for f in range(len(table_following))]


def test_there_are_6720_frames_at_most_six_moves_apart() -> None:
    table = frame_table()
    following = table.following.reshape(-1, MOVES)
    assert len(table.planes) == 1451520 // 6**3
    assert max(cx_distance(following)) == 6
    for frame in range(0, len(following), 97):
        assert all(frame in following[other] for other in following[frame])


def test_nine_paulis_act_on_one_qubit_in_every_frame() -> None:
    table = frame_table()
    weight = table.weight.reshape(-1, 64)
    for w, paulis in ((0, 1), (1, 9), (2, 27), (3, 27)):
        assert (np.count_nonzero(weight == w, axis=1) == paulis).all()
    for frame in range(0, len(weight), 211):
        assert (weight[frame, table.planes[frame]] == 1).all()


def test_signed_paulis_are_those_of_the_matrices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        circuit, pulled = Circuit(3), Pulled()
        for _ in range(10):
            code = int(rng.choice(list(PARTS)))
            qubits = tuple(rng.permutation(3)[: GATES[code].num_qubits].tolist())
            circuit.append(GATES[code].name, qubits)
            pulled.apply(code, qubits)
        matrix = dense(circuit)
        for bits in range(1, 64):
            found, sign = pulled.signed(bits)
            assert np.allclose(matrix.conj().T @ pauli(bits) @ matrix, sign * pauli(found))


def test_all_24_one_qubit_cliffords_have_a_word() -> None:
    words = local_cliffords()
    assert len(words) == 24
    for (x, x_sign, z, z_sign), word in words.items():
        pulled = Pulled()
        for code in word:
            pulled.apply(code, (0,))
        assert pulled.signed(on_qubit("X", 0)) == (on_qubit(x, 0), x_sign)
        assert pulled.signed(on_qubit("Z", 0)) == (on_qubit(z, 0), z_sign)


def test_seven_parities_of_three_qubits_take_six_cx() -> None:
    parities = np.array([8, 16, 32, 24, 40, 48, 56])
    none = np.zeros(7, dtype=np.int64)
    assert shortest_network(parities, none, 0, 5, 1 << 16) is None
    network = shortest_network(parities, none, 0, 6, 1 << 16)
    assert network is not None
    assert len(network.moves) == 6
    assert sorted(j for step in network.steps for j in step) == list(range(7))


def test_search_without_room_gives_up() -> None:
    parities = np.array([8, 16, 32, 24, 40, 48, 56])
    assert shortest_network(parities, np.zeros(7, dtype=np.int64), 0, 6, 16) is None


def test_clifford_circuits_get_the_fewest_cx() -> None:
    table = frame_table()
    distance = cx_distance(table.following.reshape(-1, MOVES))
    rng = np.random.default_rng(1)
    for _ in range(25):
        circuit = random_circuit(rng, 18, ("cx", "cx", "h", "s", "sx"))
        if two(circuit) > 9:
            continue
        pulled = Pulled()
        for i, (name, qubits, _) in enumerate(circuit.run.operations()):
            assert i >= 0
            pulled.apply(gate(name).code, qubits)
        planes = []
        for q in range(3):
            first, second, third = sorted(bits for _, bits, _ in pulled.letters(q))
            planes.append((first, second, third))
        result = shortened(circuit, room=1 << 16)
        assert two(result) == distance[table.of(tuple(planes))]


def test_four_cx_in_a_row_are_one() -> None:
    circuit = Circuit(3).cx(0, 1).cx(1, 2).cx(0, 1).cx(1, 2)
    assert [name for name, _, _ in shortened(circuit).run.operations()] == ["cx"]


def test_symbols_stay_and_only_change_signs() -> None:
    rng = np.random.default_rng(2)
    saved = 0
    for _ in range(40):
        circuit = random_circuit(rng, 22, ("cx", "cx", "cz", "h", "rz", "rx", "ry", "s"))
        result = shortened(circuit)
        saved += two(circuit) - two(result)
        assert result.stats().rotations == circuit.stats().rotations
    assert saved > 20


def test_named_t_gates_stay_named() -> None:
    rng = np.random.default_rng(3)
    changed = 0
    for _ in range(40):
        circuit = random_circuit(rng, 24, ("cx", "cx", "h", "t", "tdg", "x"))
        result = shortened(circuit)
        changed += result is not circuit
        assert result.stats().t_count == circuit.stats().t_count
        assert not np.isin(result.run.code, [G.RZ, G.P]).any()
    assert changed > 5


def test_rotations_that_do_not_commute_keep_their_order() -> None:
    a, b = Parameter("a"), Parameter("b")
    circuit = Circuit(3, params=("a", "b"))
    circuit.cx(0, 1).rz(a, 1).cx(0, 1).h(1).cx(0, 1).rz(b, 1).cx(0, 1).cx(1, 2).cx(1, 2)
    assert two(shortened(circuit)) < two(circuit)


def test_windows_reach_past_gates_on_other_qubits() -> None:
    circuit = Circuit(5).cx(0, 1).cx(3, 4).h(3).cx(1, 2).cx(4, 3).cx(0, 1).h(4).cx(1, 2)
    # The two gates on qubits 3 and 4 are one by themselves.
    assert two(shortened(circuit)) == 2


@pytest.mark.parametrize(
    "stop",
    [
        lambda c: c.barrier(0, 1, 2),
        lambda c: c.measure(1, 0),
        lambda c: c.reset(1),
        lambda c: c.u(0.1, 0.2, 0.3, 1),
        lambda c: c.mcx((0, 2), 1),
    ],
)
def test_walls_are_not_passed(stop: object) -> None:
    circuit = Circuit(3, 1).cx(0, 1).cx(1, 2)
    assert callable(stop)
    stop(circuit)
    circuit.cx(0, 1).cx(1, 2)
    assert shortened(circuit) is circuit


def test_gates_after_a_wall_on_one_qubit_do_not_come_before_it() -> None:
    circuit = Circuit(4, 1).cx(0, 1).cx(1, 2).measure(1, 0).cx(1, 3).cx(3, 2).cx(0, 2).cx(0, 2)
    result = shortened(circuit)
    assert two(result) == two(circuit) - 2
    codes = [name for name, qubits, _ in result.run.operations() if 1 in qubits]
    assert codes == ["cx", "cx", "measure", "cx"]


def test_work_is_bounded() -> None:
    circuit = Circuit(3).cx(0, 1).cx(1, 2).cx(0, 1).cx(1, 2)
    assert shortened(circuit, searches=0) is circuit
    assert two(shortened(circuit, searches=1)) == 1


def test_phase_is_kept_inside_of_a_branch() -> None:
    from qcomp.equivalence import check
    from qcomp.ir.classical import Bit

    circuit = Circuit(3, 1).h(0)
    circuit.measure(0, 0)
    with circuit.if_(Bit(0)):
        circuit.cx(0, 1).t(1).cx(1, 2).s(2).h(1).cx(0, 1).cx(1, 2).swap(0, 1)
    result = ResynthesizeWindows().run(circuit, Context())
    assert result is not circuit
    assert check(circuit, result).equal is True


def test_prices_decide_what_a_cx_gate_may_cost() -> None:
    rng = np.random.default_rng(4)
    results: dict[float, list[int]] = {}
    for _ in range(30):
        circuit = random_circuit(rng, 24, ("cx", "cx", "h", "t", "s", "sx"))
        for price in (0.0, 8.0, 1000.0):
            result = ResynthesizeWindows(two_qubit=price).run(circuit, Context())
            results.setdefault(price, []).append(two(result))
    assert sum(results[1000.0]) <= sum(results[8.0]) < sum(results[0.0])


def test_chains_of_clifford_gates_become_single_words() -> None:
    ops: list[Op] = [(code, (0,), -1, 1) for code in (G.H, G.S, G.S, G.H)]
    ops += [(G.CX, (0, 1), -1, 1), (G.H, (1,), -1, 1), (G.H, (1,), -1, 1)]
    assert merged(ops) == [(G.X, (0,), -1, 1), (G.CX, (0, 1), -1, 1)]


def test_quarter_turns_are_those_of_the_gate_table() -> None:
    for name in ("rx", "ry", "rz"):
        for halves in range(-4, 8):
            product = np.eye(2, dtype=complex)
            for code in quarter_turns(gate(name).code, halves):
                product = GATES[code].matrix() @ product
            overlap = np.trace(product.conj().T @ gate(name).matrix(halves * np.pi / 2))
            assert abs(overlap) == pytest.approx(2)
