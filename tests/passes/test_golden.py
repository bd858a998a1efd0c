"""Golden cases: one file holds a pipeline, a sentence of intent, a circuit and the exact output.

``pytest --update-golden`` rewrites the outputs; a case whose output is not equivalent to its input
fails all the same.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qcomp.equivalence import check
from qcomp.equivalence.ancillas import check_with_ancillas
from qcomp.equivalence.distance import operator_distance
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import CircuitPass, Context, Guarantee, Pass, Pipeline
from qcomp.registry import GROUPS, load, table

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(GOLDEN.glob("*/*.golden"))


@dataclass(frozen=True)
class Case:
    """What a golden file holds."""

    pipeline: str
    intent: str
    source: str
    output: str

    @staticmethod
    def read(path: Path) -> "Case":
        head, _, rest = path.read_text().partition("--- input\n")
        source, _, output = rest.partition("--- output\n")
        fields = dict(line.split(": ", 1) for line in head.splitlines())
        assert set(fields) == {"pipeline", "intent"}, path
        return Case(fields["pipeline"], fields["intent"], source, output)

    def write(self, path: Path) -> None:
        path.write_text(
            f"pipeline: {self.pipeline}\nintent: {self.intent}\n"
            f"--- input\n{self.source}--- output\n{self.output}"
        )


def kinds(pipeline: str) -> list[type[Pass]]:
    """The passes of a pipeline."""
    return [load("passes", name) for name in table("passes") if re.search(rf"\b{name}\b", pipeline)]


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_case_gives_exactly_this_output(path: Path, update_golden: bool) -> None:
    case = Case.read(path)
    before = Circuit.from_qasm(case.source)
    program = Program.of_circuit(before)
    context = Context(verify_each=True)
    Pipeline.parse(case.pipeline).run(program, context)
    after = program.only_circuit
    if after.layout is None and after.num_qubits > before.num_qubits:
        verdict = check_with_ancillas(before, after)
    else:
        used = kinds(case.pipeline)
        only_bits = any(kind.only_bits for kind in used)
        from_zero = any(kind.from_zero for kind in used)
        verdict = check(before, after, only_bits=only_bits, from_zero=from_zero)
    if any(kind.preserves is Guarantee.WITHIN for kind in kinds(case.pipeline)):
        apart = operator_distance(before, after)
        assert apart is not None
        assert apart <= context.ledger.promised_norm
    else:
        assert verdict.equal is True, verdict
    output = after.to_qasm3()
    if update_golden:
        replace(case, output=output).write(path)
        return
    assert output == case.output, case.intent


def test_every_circuit_pass_of_ours_has_golden_cases() -> None:
    ours = [
        name
        for name in GROUPS["passes"]
        if name in table("passes") and issubclass(load("passes", name), CircuitPass)
    ]
    used = {Case.read(path).pipeline.partition("{")[0] for path in CASES}
    assert ours
    assert set(ours) <= used
