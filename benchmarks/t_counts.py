"""T counts beside the best known ones: rotations that merge over parities, and across Hadamards.

    python benchmarks/t_counts.py BENCH

BENCH holds ``records/tcount_records.json`` and ``circuits/NAME.qasm``. Prints one row a circuit:
non-Clifford rotations of the input, after merge-rotations, after merge-pauli-rotations, FastTMerge
and BBMerge as recorded (arXiv:2407.07846), and CPU milliseconds of the last pass on the input of
merge-rotations' result. Ends with code 1 where a count is above the lesser record.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passes.reduce.merge_pauli_rotations import MergePauliRotations
from qcomp.passes.reduce.merge_rotations import MergeRotations
from qcomp.passmanager import Context, Pipeline


def main(bench: Path) -> int:
    """Print the table; 1 where a record is missed."""
    records = json.loads((bench / "records" / "tcount_records.json").read_text())["circuits"]
    worse = 0
    print(
        "| circuit | input | merge-rotations | merge-pauli-rotations | FastTMerge | BBMerge | ms |"
    )
    print("|---|---|---|---|---|---|---|")
    MergePauliRotations().run(Circuit(1).t(0).t(0), Context())
    for name, record in records.items():
        known = [record[key] for key in ("fasttmerge", "bbmerge") if record[key] is not None]
        path = bench / "circuits" / (name.replace("^", "_") + ".qasm")
        if not known or not path.exists():
            continue
        program = Program.of_circuit(Circuit.from_qasm(path.read_text()))
        Pipeline.parse("to-basis{max_qubits=2}").run(program, Context())
        given = program.only_circuit
        first = MergeRotations().run(given, Context())
        MergePauliRotations().run(first, Context())
        start = time.process_time()
        last = MergePauliRotations().run(first, Context())
        spent = 1000 * (time.process_time() - start)
        counts = [circuit.stats().rotations for circuit in (given, first, last)]
        shown = [*counts, record["fasttmerge"], record["bbmerge"]]
        print(f"| {name} | {' | '.join(map(str, shown))} | {spent:.1f} |")
        worse += counts[-1] > min(known)
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
