"""The whole corpus: read or refused as it should be, written again with the same meaning."""

import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from qcomp.errors import SourceError, UsageError
from qcomp.frontends.openqasm.reader import read_text
from qcomp.ir.circuit import Circuit
from qcomp.ir.verify import verify
from qcomp.simulate import bit_distribution, unitary
from qcomp.simulate.control_flow import is_unitary
from tests.openqasm import corpus
from tests.openqasm.corpus import Sample

REFUSED = "the program uses what a gate machine cannot run: "
GOAL = 0.90
MAX_QUBITS = 10


@pytest.fixture(scope="module")
def samples(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    root = shared / "qasm3"
    if not root.is_dir():
        pytest.skip("the OpenQASM corpus is not beside this checkout")
    return corpus.load(root, tmp_path_factory.mktemp("corpus"))


def read(sample: Sample) -> Circuit:
    circuit = read_text(sample.path.read_bytes(), folder=sample.folder, inputs=sample.inputs)
    verify(circuit)
    return circuit


def attempt(sample: Sample) -> Circuit | SourceError:
    """The circuit of a file, or its error, which must have a place."""
    try:
        return read(sample)
    except SourceError as error:
        found = error
    assert found.line >= 1, sample.path.name
    assert found.column >= 1, sample.path.name
    assert found.what
    return found


def valid(samples: list[Sample]) -> list[Sample]:
    return [s for s in samples if s.expected in ("parse_ok", "qasm2_ok") and not s.raises]


def test_at_least_nine_of_ten_programs_are_read_and_the_others_refused_by_name(
    samples: list[Sample],
) -> None:
    counts: Counter[str] = Counter()
    constructs: Counter[str] = Counter()
    for sample in valid(samples):
        result = attempt(sample)
        if isinstance(result, Circuit):
            assert sample.key not in corpus.NOT_PROGRAMS | corpus.BEYOND, sample.path.name
            counts["read"] += 1
        elif sample.key in corpus.NOT_PROGRAMS:
            assert corpus.NOT_PROGRAMS[sample.key] in result.what, sample.path.name
            counts["not a program"] += 1
        elif sample.key in corpus.BEYOND:
            assert result.what == corpus.BEYOND[sample.key], sample.path.name
            counts["refused"] += 1
            constructs[corpus.BEYOND[sample.key]] += 1
        else:
            assert result.what.startswith(REFUSED), f"{sample.path.name}: {result}"
            names = re.findall(
                r"(?:^|, )([^(,]+) \(\d+, first at line", result.what[len(REFUSED) :]
            )
            assert names, result.what
            counts["refused"] += 1
            constructs.update(name.partition(" '")[0] for name in names)
    programs = counts["read"] + counts["refused"]
    share = counts["read"] / programs
    print(
        f"\nOpenQASM corpus, expected to parse and to run: {sum(counts.values())} files;"
        f"\n  read: {counts['read']} of {programs} valid programs = {share:.1%}"
        f"\n  refused by name: {counts['refused']} ({dict(constructs)})"
        f"\n  right syntax but no program by OpenQASM's rules: {counts['not a program']}"
    )
    assert share >= GOAL
    assert counts["not a program"] == len(corpus.NOT_PROGRAMS)


def test_every_file_that_must_not_parse_gets_an_error_with_a_place(samples: list[Sample]) -> None:
    wrong = [s for s in samples if s.expected == "parse_error"]
    read_anyway = [s.path.name for s in wrong if isinstance(attempt(s), Circuit)]
    print(f"\nOpenQASM corpus, expected not to parse: {len(wrong)} files, {len(read_anyway)} read")
    assert len(wrong) > 90
    assert read_anyway == []


MORE_THAN_QISKIT = (
    r"'\w+' is not defined in this scope",  # gates of later qelib1.inc, or of Qiskit's writer
    r"needed '\[', but instead saw ;",  # qreg q; is one qubit
    r"unable to find 'stdgates.inc'",
)


def test_openqasm_2_that_qiskit_refuses_is_read_only_where_that_is_right(
    samples: list[Sample],
) -> None:
    """Most of this class is good OpenQASM 2 that lacks one gate in Qiskit's strict qelib1.inc."""
    counts: Counter[str] = Counter()
    for sample in samples:
        if sample.expected != "qasm2_error_or_unsupported":
            continue
        result = attempt(sample)
        if isinstance(result, Circuit):
            assert any(re.search(p, sample.qiskit_error) for p in MORE_THAN_QISKIT), sample.path
            counts["read"] += 1
        else:
            counts["error"] += 1
    print(f"\nOpenQASM corpus, OpenQASM 2 that Qiskit's strict reader refuses: {dict(counts)}")
    assert counts["error"] >= 12
    assert counts["read"] >= 28


def test_programs_that_their_own_tests_expect_to_fail_mostly_get_a_clear_error(
    samples: list[Sample],
) -> None:
    """Of the right syntax, wrong by meaning for the tool whose test it is; not all are for us."""
    counts: Counter[str] = Counter()
    for sample in samples:
        if sample.expected in ("parse_ok", "qasm2_ok") and sample.raises:
            counts["read" if isinstance(attempt(sample), Circuit) else "error"] += 1
    print(f"\nOpenQASM corpus, expected to fail by meaning: {dict(counts)}")
    assert counts["error"] >= 105


def test_newer_syntax_is_read_or_refused_by_meaning(samples: list[Sample]) -> None:
    results = [attempt(s) for s in samples if s.expected == "parse_ok_newer_grammar"]
    errors = [result.what for result in results if isinstance(result, SourceError)]
    assert len(results) == 2
    assert errors == ["a gate cannot contain a reset"]


# ---------------------------------------------------------------- meaning


def meaning(circuit: Circuit) -> np.ndarray | None:
    """The unitary, or the exact distribution of the bits; None for circuits without either."""
    if circuit.num_qubits > MAX_QUBITS or circuit.num_params:
        return None
    try:
        if circuit.num_clbits and circuit.num_clbits <= 14:
            return np.asarray(bit_distribution(circuit))
        return np.asarray(unitary(circuit)) if not circuit.num_clbits else None
    except (UsageError, RecursionError):  # beyond the simulator's bounds
        return None


def test_what_is_read_is_written_again_with_the_same_meaning(samples: list[Sample]) -> None:
    import openqasm3

    counts: Counter[str] = Counter()
    for sample in samples:
        result = attempt(sample)
        if not isinstance(result, Circuit):
            continue
        text = result.to_qasm3()
        openqasm3.parse(text)
        again = read_text(text)
        if result.equals(again):
            counts["identical"] += 1
            continue
        # Names that clash with gates are changed by the writer, and conversions are made plain:
        # from then on reading and writing change nothing, and the meaning is the same.
        assert read_text(again.to_qasm3()).equals(again), sample.path.name
        first, second = meaning(result), meaning(again)
        if first is not None and second is not None and first.shape == second.shape:
            np.testing.assert_allclose(first, second, atol=1e-9, err_msg=sample.path.name)
            counts["same meaning"] += 1
        else:
            counts["stable text"] += 1
    print(
        f"\nOpenQASM corpus, read, written, read by the reference parser and again: {dict(counts)}"
    )
    assert counts["identical"] >= 480
    assert counts["stable text"] <= 3


def qiskit_circuit(sample: Sample) -> object | None:
    import qiskit.qasm2
    import qiskit.qasm3

    try:
        if "OPENQASM 2" in sample.text:
            return qiskit.qasm2.loads(
                sample.text, custom_instructions=qiskit.qasm2.LEGACY_CUSTOM_INSTRUCTIONS
            )
        return qiskit.qasm3.loads(sample.text)
    except Exception:  # noqa: BLE001  Qiskit raises errors of many kinds on what it cannot read
        return None


@pytest.mark.slow
def test_what_qiskit_reads_too_is_the_same_circuit(samples: list[Sample]) -> None:
    from qiskit.quantum_info import Operator
    from qiskit_aer import AerError, AerSimulator

    simulator = AerSimulator(seed_simulator=7)
    shots = 1500
    counts: Counter[str] = Counter()
    for sample in samples:
        ours = attempt(sample)
        if not isinstance(ours, Circuit) or ours.num_qubits > 8 or sample.key == "693797ab":
            continue  # The last redefines ryy, which Qiskit's legacy instructions ignore.
        theirs = qiskit_circuit(sample)
        if theirs is None or theirs.parameters or ours.num_params:  # type: ignore[attr-defined]
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bare = theirs.remove_final_measurements(inplace=False)  # type: ignore[attr-defined]
            measures = {"measure", "reset", "delay", "box", "if_else"} & set(bare.count_ops())
            if not bare.clbits and is_unitary(ours) and not measures:
                expected = Operator(bare).data
                np.testing.assert_allclose(
                    np.asarray(unitary(ours)), expected, atol=1e-8, err_msg=sample.path.name
                )
                counts["unitary, phase included"] += 1
                continue
            if not 0 < ours.num_clbits <= 10 or theirs.num_clbits != ours.num_clbits:  # type: ignore[attr-defined]
                continue
            try:
                found = simulator.run(theirs.decompose(reps=4), shots=shots).result()  # type: ignore[attr-defined]
            except AerError:  # boxes and other instructions that Aer does not know
                counts["not for Aer"] += 1
                continue
            if not found.success or "counts" not in found.data(0):
                counts["not for Aer"] += 1
                continue
        exact = np.asarray(bit_distribution(ours))[0]
        counted = np.zeros_like(exact)
        for key, number in found.get_counts().items():
            counted[int(key.replace(" ", ""), 2)] += number / shots
        distance = np.abs(exact - counted).sum() / 2
        assert distance < 0.03 + 0.02 * np.sqrt(min(np.count_nonzero(exact > 1e-12), 200)), (
            sample.path.name
        )
        counts["distribution"] += 1
    print(f"\nOpenQASM corpus, equal to what Qiskit reads: {dict(counts)}")
    assert counts["unitary, phase included"] >= 130
    assert counts["distribution"] >= 25
    assert counts["not for Aer"] <= 40
