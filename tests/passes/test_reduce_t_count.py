"""reduce-t-count: tensors are kept, Hadamards are fewest, gadgets are exact channels."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.equivalence.ancillas import CHOI_QUBITS, check_with_ancillas
from qcomp.errors import PassError
from qcomp.ir.blocks import If
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout
from qcomp.ir.verify import verify
from qcomp.passes.reduce.merge_pauli_rotations import MergePauliRotations
from qcomp.passes.synthesize.t_count.elimination import pack, unpack
from qcomp.passes.synthesize.t_count.parities import Polynomial, clifford_difference
from qcomp.passes.synthesize.t_count.path_sum import linear_network
from qcomp.passes.synthesize.t_count.pauli_sequence import Frame, diagonalise
from qcomp.passes.synthesize.t_count.reduce_t_count import ReduceTCount
from qcomp.passes.synthesize.t_count.tables import fasttodd, odd_columns, tohpe
from qcomp.passmanager import Context, Pipeline
from tests.ir.dense import dense


def tensor(columns: list[int], n: int) -> np.ndarray:
    """``sum_j P_aj P_bj P_cj`` modulo 2 by its definition."""
    p = np.array([[c >> a & 1 for c in columns] for a in range(n)], dtype=int).reshape(n, -1)
    return np.einsum("aj,bj,cj->abc", p, p, p) % 2


tables = st.integers(1, 6).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.integers(1, 2**n - 1), max_size=24))
)


@pytest.mark.parametrize("reduce", [tohpe, fasttodd])
@settings(max_examples=60, deadline=None)
@given(case=tables)
def test_a_reduced_table_has_the_tensor_of_the_table(reduce, case) -> None:
    n, columns = case
    fewer = reduce(columns, n)
    assert np.array_equal(tensor(fewer, n), tensor(columns, n))
    assert len(set(fewer)) == len(fewer) <= len(set(columns))
    assert 0 not in fewer


@pytest.mark.parametrize(("n", "off"), [(3, 0), (4, 6)])
def test_fasttodd_reaches_the_least_columns_of_small_tensors(n: int, off: int) -> None:
    least: dict[bytes, int] = {}
    for size in range(8):
        for columns in itertools.combinations(range(1, 1 << n), size):
            least.setdefault(tensor(list(columns), n).tobytes(), size)
    rng = np.random.default_rng(n)
    more = 0
    for _ in range(40):
        columns = rng.integers(1, 1 << n, size=12).tolist()
        more += len(fasttodd(columns, n)) - least[tensor(columns, n).tobytes()]
    # A descent: with four variables it stops one short of the least now and then.
    assert 0 <= more <= off


def test_compiled_and_plain_kernels_find_the_same_tables() -> None:
    from qcomp.passes.synthesize.t_count import elimination

    columns = np.random.default_rng(7).integers(1, 1 << 7, size=24).tolist()
    plain = fasttodd(columns, 7)
    for kernel in (elimination.eliminate, elimination.search):
        kernel.compiled()
    assert fasttodd(columns, 7) == plain
    assert len(plain) < len(set(columns))


def test_tables_of_more_variables_than_a_word_are_reduced() -> None:
    # A Toffoli's seven parities, and the same again on variables far apart.
    def seven(a: int, b: int, c: int) -> list[int]:
        x, y, z = 1 << a, 1 << b, 1 << c
        return [x, y, z, x ^ y, y ^ z, z ^ x, x ^ y ^ z]

    columns = [*seven(0, 70, 120), *seven(0, 70, 99)]
    columns += [1 << v for v in range(1, 70)]
    fewer = fasttodd(columns, 121)
    # x y z + x y w = x y (z + w): twelve of the parities become seven.
    assert len(fewer) <= 69 + 7 + 2
    for triple in itertools.combinations((0, 70, 99, 120, 5), 3):
        count = [sum(all(c >> v & 1 for v in triple) for c in t) % 2 for t in (columns, fewer)]
        assert count[0] == count[1]


def test_a_table_too_large_is_reduced_in_parts() -> None:
    columns = np.random.default_rng(2).integers(1, 1 << 6, size=60).tolist()
    parts = tohpe(columns, 6, largest=1500)
    assert np.array_equal(tensor(parts, 6), tensor(columns, 6))
    assert len(tohpe(columns, 6)) < len(parts) < len(odd_columns(columns))


def test_packing_is_undone() -> None:
    bit = np.random.default_rng(0).random((5, 200)) < 0.5
    assert np.array_equal(unpack(pack(bit), 200), bit)


@given(st.lists(st.tuples(st.integers(1, 31), st.integers(-9, 9)), max_size=6))
def test_a_polynomial_has_the_values_of_its_parities(terms: list[tuple[int, int]]) -> None:
    made = Polynomial()
    for parity, weight in terms:
        made.add(parity, weight)
    for x in range(32):
        on = [x >> a & 1 for a in range(5)]
        value = sum(w * on[a] for a, w in made.linear.items())
        value += sum(w * on[a] * on[b] for (a, b), w in made.square.items())
        value += sum(4 * on[a] * on[b] * on[c] for a, b, c in made.cube)
        assert (value - sum(w * ((p & x).bit_count() % 2) for p, w in terms)) % 8 == 0


def test_a_difference_that_is_no_clifford_is_refused() -> None:
    assert clifford_difference({1: 3, 2: 1}, [1, 2]) == ([(0, 1)], [])
    with pytest.raises(PassError, match="more than a Clifford"):
        clifford_difference({1: 1}, [2])


def test_a_linear_network_writes_its_rows() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = [1 << q for q in range(6)]
        for _ in range(30):
            a, b = rng.choice(6, 2, replace=False)
            rows[b] ^= rows[a]
        value = [1 << q for q in range(6)]
        for _, a, b in linear_network(rows):
            value[b] ^= value[a]
        assert value == rows


def rank(matrix: np.ndarray) -> int:
    """The rank over GF(2)."""
    m = matrix.copy() % 2
    found = 0
    for column in range(m.shape[1]):
        rows = np.flatnonzero(m[found:, column])
        if not len(rows):
            continue
        m[[found, found + rows[0]]] = m[[found + rows[0], found]]
        below = np.flatnonzero(m[:, column])
        m[below[below != found]] ^= m[found]
        found += 1
        if found == m.shape[0]:
            break
    return found


def test_the_hadamards_inside_are_as_few_as_the_rank_of_what_anticommutes() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        n, m = int(rng.integers(1, 6)), int(rng.integers(1, 14))
        x, z = rng.integers(0, 2, (m, n)), rng.integers(0, 2, (m, n))
        frame = Frame(n)
        for q in range(n):
            frame.x[q] = sum(int(x[j, q]) << j for j in range(m))
            frame.z[q] = sum(int(z[j, q]) << j for j in range(m))
        _, steps, _ = diagonalise(frame, [1] * m)
        hadamards = sum(isinstance(step, tuple) and step[0] == "h" for step in steps)
        assert hadamards == rank(np.triu((x @ z.T + z @ x.T) % 2, 1))


def clifford_and_t(seed: int, n: int, size: int) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(n, name=f"seed {seed}")
    for name in rng.choice(["h", "t", "t", "t", "cx", "cx", "tdg", "s", "x", "ccx"], size=size):
        if name == "ccx" and n < 3:
            continue
        arity = {"cx": 2, "ccx": 3}.get(name, 1)
        circuit.append(name, rng.choice(n, arity, replace=False).tolist())
    return circuit


@pytest.mark.parametrize("method", ["tohpe", "fasttodd"])
@pytest.mark.parametrize("seed", range(8))
def test_without_gadgets_the_unitary_is_the_same(method: str, seed: int) -> None:
    before = clifford_and_t(seed, 2 + seed % 3, 40)
    after = ReduceTCount(method=method).run(before, Context())  # type: ignore[arg-type]
    assert after is not before
    verify(after)
    assert after.stats().t_count < before.stats().t_count
    assert np.abs(dense(before) - dense(after)).max() < 1e-12
    assert ReduceTCount(method=method).run(after, Context()) is after  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["tohpe", "fasttodd"])
def test_with_gadgets_the_channel_is_the_same_after_every_outcome(method: str) -> None:
    made = 0
    for seed in range(60):
        if made == 3:
            break
        before = clifford_and_t(seed, 2 + seed % 2, 20)
        context = Context()
        plain = ReduceTCount(method=method).run(before, Context())  # type: ignore[arg-type]
        after = ReduceTCount(gadgets=True, method=method).run(before, context)  # type: ignore[arg-type]
        verify(after)
        if after.num_qubits == before.num_qubits:
            assert after.equals(plain)
            assert not context.warnings
            continue
        if before.num_qubits + after.num_qubits > CHOI_QUBITS:
            continue
        made += 1
        assert after.stats().t_count < plain.stats().t_count
        extra = after.num_qubits - before.num_qubits
        assert f"{extra} ancillas, {extra} measurements" in context.warnings[0]
        assert context.warnings[0] in after.notes
        assert after.stats().measurements == extra == after.num_clbits
        verdict = check_with_ancillas(before, after, seed)
        assert verdict.equal is True, f"{before.name}: {verdict}"
        assert verdict.error < 1e-12
    assert made == 3


def gadgetised() -> tuple[Circuit, Circuit]:
    for seed in range(100):
        before = clifford_and_t(seed, 2, 30)
        after = ReduceTCount(gadgets=True).run(before, Context())
        if any(isinstance(item, If) for item in after.body):
            return before, after
    raise AssertionError("no circuit was given gadgets")


def test_a_gadget_without_its_correction_is_found_out() -> None:
    before, after = gadgetised()
    broken = after.copy(body=tuple(i for i in after.body if not isinstance(i, If)))
    assert check_with_ancillas(before, after).equal is True
    assert check_with_ancillas(before, broken).equal is False


def test_other_angles_measurements_and_control_flow_stay() -> None:
    before = Circuit(3, 2, params=("a",))
    for q in range(3):
        before.h(q)
    before.ccx(0, 1, 2)
    before.rx(0.3, 0)
    before.ccx(0, 1, 2)
    before.measure(0, 0)
    with before.if_(_bit(0)):
        before.ccx(2, 1, 0)
        before.ccx(2, 1, 0)
    before.measure(1, 1)
    after = ReduceTCount().run(before, Context())
    verify(after)
    assert after.stats().t_count < before.stats().t_count
    assert after.stats().measurements == 2
    assert after.stats().control_flow == 1
    assert check_with_ancillas(before, after).equal is True


def _bit(index: int) -> object:
    from qcomp.ir.classical import Bit

    return Bit(index)


def test_gadgets_hold_in_checked_mode_beside_measurements() -> None:
    before, _ = gadgetised()
    whole = Circuit(2, 1).compose(before)
    whole.measure(0, 0)
    program = Program.of_circuit(whole)
    context = Context(verify_each=True)
    [record] = Pipeline.parse("reduce-t-count{gadgets=true}").run(program, context)
    assert record.changed
    assert program.only_circuit.num_qubits > 2
    assert context.warnings


def test_a_circuit_with_as_few_t_gates_is_left_alone() -> None:
    circuit = Circuit(3)
    circuit.h(0)
    circuit.t(0)
    circuit.u(0.1, 0.2, 0.3, 1)
    circuit.swap(1, 2)
    for gadgets in (False, True):
        assert ReduceTCount(gadgets=gadgets).run(circuit, Context()) is circuit


def toffoli_ladder(n: int) -> Circuit:
    circuit = Circuit(2 * n - 1, name=f"tof_{n}")
    chain = [(0, 1, n)] + [(k, n + k - 2, n + k - 1) for k in range(2, n)]
    for a, b, c in [*chain, *chain[-2::-1]]:
        circuit.ccx(a, b, c)
    return circuit


@pytest.mark.parametrize(("n", "record"), [(3, 13), (4, 19), (5, 25)])
def test_toffoli_ladders_reach_the_published_t_counts(n: int, record: int) -> None:
    merged = MergePauliRotations().run(toffoli_ladder(n), Context())
    after = ReduceTCount(gadgets=True).run(merged, Context())
    assert after.stats().t_count <= record


def test_the_multiplier_of_gf16_needs_no_ancilla() -> None:
    # Mastrovito multiplier modulo x^4 + x + 1; records 59 (TOHPE) and 49 (FastTODD).
    circuit = Circuit(12)
    power = [1, 2, 4, 8, 3, 6, 12]
    for i, j in itertools.product(range(4), repeat=2):
        for k in range(4):
            if power[i + j] >> k & 1:
                circuit.ccx(i, 4 + j, 8 + k)
    merged = MergePauliRotations().run(circuit, Context())
    counts = {
        method: ReduceTCount(method=method).run(merged, Context())  # type: ignore[arg-type]
        for method in ("tohpe", "fasttodd")
    }
    assert counts["tohpe"].stats().t_count <= 59
    assert counts["fasttodd"].stats().t_count <= 49
    assert all(reduced.num_qubits == 12 for reduced in counts.values())


def test_a_graph_that_would_read_the_ancillas_is_refused() -> None:
    text = "merge-pauli-rotations,reduce-t-count{gadgets=true}"
    source = Circuit(5, name="layer").ccx(0, 1, 2).ccx(2, 3, 4).ccx(0, 1, 2)
    for readout in (Readout("expval", (Observable.z(4),)), Readout("probs")):
        program = Program.of_circuit(source, readout)
        Pipeline.parse(f"to-basis{{gates=[h,t,tdg,cx]}},{text}").run(program, Context())
        assert program.only_circuit.num_qubits > 5
        hybrid = Program.of_circuit(source, readout)
        _negate_output(hybrid)
        steps = Pipeline.parse(f"to-basis{{gates=[h,t,tdg,cx]}},{text}")
        if readout.kind == "expval":
            steps.run(hybrid, Context())
            assert hybrid.only_circuit.num_qubits > 5
        else:
            with pytest.raises(PassError, match="adds qubits"):
                steps.run(hybrid, Context())


def _negate_output(program: Program) -> None:
    """Put a classical node behind the circuit."""
    graph = program.model.graph
    (value,) = graph.outputs
    node = ir.Node("", "Neg", [value], name="neg")
    node.outputs[0].name, node.outputs[0].type = "negated", value.type
    graph.append(node)
    graph.outputs[0] = node.outputs[0]
