"""CX circuits of matrices over GF(2), and networks of parities, against brute force."""

import itertools
from collections import deque

import numpy as np
import pytest

from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.gray_synth import CX, PARITY, gray_synth
from qcomp.passes.synthesize.linear_reversible import linear_reversible, lower_triangle
from tests.ir.dense import dense


def product(gates: np.ndarray, n: int) -> np.ndarray:
    out = np.eye(n, dtype=np.int64)
    for c, t in gates.tolist():
        out[t] ^= out[c]
    return out


def random_matrix(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.permutation(n)[:2] for _ in range(6 * n * n)])
    return product(pairs, n)


def fewest(n: int) -> dict[bytes, int]:
    """The fewest CX gates of every invertible matrix, by breadth-first search."""
    start = np.eye(n, dtype=np.int64)
    found = {start.tobytes(): 0}
    todo = deque([start])
    while todo:
        a = todo.popleft()
        for c, t in itertools.permutations(range(n), 2):
            b = a.copy()
            b[t] ^= b[c]
            if b.tobytes() not in found:
                found[b.tobytes()] = found[a.tobytes()] + 1
                todo.append(b)
    return found


@pytest.mark.parametrize(("n", "count", "more"), [(2, 6, 0), (3, 168, 1), (4, 20160, 4)])
def test_every_small_matrix_is_written_near_its_optimum(n: int, count: int, more: int) -> None:
    table = fewest(n)
    assert len(table) == count
    for key, best in list(table.items())[:: 1 if n < 4 else 29]:
        a = np.frombuffer(key, dtype=np.int64).reshape(n, n)
        gates = linear_reversible(a)
        assert np.array_equal(product(gates, n), a)
        assert len(gates) <= best + more


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 5, 16, 37])
def test_a_matrix_takes_no_more_gates_than_the_papers_bound(n: int, width: int) -> None:
    a = random_matrix(n, n) if n > 1 else np.eye(1, dtype=np.int64)
    gates = linear_reversible(a, width)
    assert np.array_equal(product(gates, n), a)
    # Each triangle: a row and section one, a diagonal entry one, a column and pattern one.
    sections = -(-n // width)
    assert len(gates) <= 2 * (n * sections + n + n * (2**width - 1))


def test_sections_save_gates_on_large_matrices() -> None:
    a = random_matrix(96, 3)
    assert len(linear_reversible(a, 3)) < 0.8 * len(linear_reversible(a, 1))


def test_the_gates_are_the_permutation_of_basis_states() -> None:
    a = random_matrix(4, 9)
    circuit = Circuit(4)
    for c, t in linear_reversible(a).tolist():
        circuit.cx(c, t)
    matrix = dense(circuit)
    for x in range(16):
        bits = np.array([x >> j & 1 for j in range(4)])
        y = int((a @ bits % 2) @ (1 << np.arange(4)))
        assert matrix[y, x] == 1


def test_what_has_no_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match="inverse"):
        linear_reversible(np.ones((2, 2), dtype=int))
    with pytest.raises(ValueError, match="square"):
        linear_reversible(np.ones((2, 3), dtype=int))


def check_network(parities: np.ndarray, network: np.ndarray) -> int:
    """Check that each parity stands where the network says; return the number of CX."""
    k, n = parities.shape
    wires = np.eye(n, dtype=np.int64)
    seen = []
    for kind, a, b in network.tolist():
        if kind == CX:
            assert a != b
            wires[b] ^= wires[a]
        else:
            assert kind == PARITY
            assert np.array_equal(wires[b], parities[a])
            seen.append(a)
    assert sorted(seen) == list(range(k))
    return int((network[:, 0] == CX).sum())


@pytest.mark.parametrize("seed", range(25))
def test_every_parity_of_a_network_comes_to_a_wire(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 9)), int(rng.integers(1, 40))
    parities = rng.integers(0, 2, (k, n))
    parities[~parities.any(axis=1), 0] = 1
    network = gray_synth(parities)
    assert network is not None
    assert check_network(parities, network) <= parities.sum()


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_parities_take_one_cx_each_like_a_gray_code(n: int) -> None:
    parities = np.array([p for p in itertools.product((0, 1), repeat=n) if any(p)])
    network = gray_synth(parities)
    assert network is not None
    assert check_network(parities, network) == 2**n - n - 1


def fewest_for(parities: np.ndarray) -> int:
    """The fewest CX gates that bring every parity to a wire, by breadth-first search."""
    n = parities.shape[1]
    wanted = [int(row @ (1 << np.arange(n))) for row in parities]

    def done(wires: tuple[int, ...]) -> int:
        return sum(1 << i for i, parity in enumerate(wanted) if parity in wires)

    start = tuple(1 << j for j in range(n))
    todo = deque([(start, done(start), 0)])
    found = {(start, done(start))}
    while True:
        wires, seen, steps = todo.popleft()
        if seen == (1 << len(wanted)) - 1:
            return steps
        for c, t in itertools.permutations(range(n), 2):
            after = tuple(w ^ wires[c] if j == t else w for j, w in enumerate(wires))
            key = after, seen | done(after)
            if key not in found:
                found.add(key)
                todo.append((*key, steps + 1))


def test_networks_of_three_wires_take_few_more_cx_than_the_fewest() -> None:
    every = np.array([p for p in itertools.product((0, 1), repeat=3) if sum(p) > 1])
    more = []
    for size in range(1, 5):
        for chosen in itertools.combinations(range(4), size):
            parities = every[list(chosen)]
            network = gray_synth(parities)
            assert network is not None
            more.append(check_network(parities, network) - fewest_for(parities))
    assert max(more) <= 1
    assert sum(more) <= 3


def test_a_limit_ends_the_network_and_an_empty_parity_is_refused() -> None:
    parities = np.array([[1, 1, 1], [1, 0, 1]])
    assert gray_synth(parities, limit=2) is None
    with pytest.raises(ValueError, match="constant"):
        gray_synth(np.array([[0, 0]]))


def test_compiled_and_plain_kernels_write_the_same() -> None:
    from qcomp.passes.synthesize.gray_synth import _walk

    a = random_matrix(9, 1).ravel()
    outs = []
    for run in (lower_triangle.python, lower_triangle.compiled()):
        out = np.zeros(400, dtype=np.int64)
        outs.append((run(9, 2, a.copy(), np.zeros(4, dtype=np.int64), out), out))
    assert outs[0][0] == outs[1][0]
    assert np.array_equal(outs[0][1], outs[1][1])
    y = np.random.default_rng(0).integers(0, 2, 60)
    walks = []
    for run in (_walk.python, _walk.compiled()):
        out = np.zeros(900, dtype=np.int64)
        work = np.zeros(10, dtype=np.int64), np.zeros(60, dtype=np.int64)
        walks.append(
            (run(6, 10, 300, y.copy(), np.arange(10), *work, np.ones(96, dtype=np.int64), out), out)
        )
    assert walks[0][0] == walks[1][0]
    assert np.array_equal(walks[0][1], walks[1][1])
