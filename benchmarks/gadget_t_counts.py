"""T counts of reduce-t-count beside TOHPE and FastTODD, and what its gadgets cost.

    python benchmarks/gadget_t_counts.py BENCH [MOST_T]

BENCH holds ``records/tcount_records.json`` and ``circuits/NAME.qasm``. Prints one row a circuit
whose lesser record is at most MOST_T, 250 by default: T after merge-pauli-rotations; after
reduce-t-count with each method, without and with gadgets (ancillas in brackets); the records with
gadgets (arXiv:2407.08695); CPU seconds of the four. Ends with code 1 where the better method stays
above the lesser record.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline

MERGED = "to-basis{gates=[h,x,rz,cx]},merge-rotations,merge-pauli-rotations{visits=10000}"


def main(bench: Path, most: int) -> int:
    """Print the table; 1 where a record is missed."""
    records = json.loads((bench / "records" / "tcount_records.json").read_text())["circuits"]
    columns = ["circuit", "merged", "tohpe", "with gadgets", "fasttodd", "with gadgets"]
    print("| " + " | ".join([*columns, "TOHPE", "FastTODD", "s"]) + " |")
    print("|" + "---|" * (len(columns) + 3))
    worse = 0
    for name, record in records.items():
        known = [record[f"{key}_gadgetised"] for key in ("tohpe", "fasttodd")]
        least = min((t for t in known if t is not None), default=None)
        path = bench / "circuits" / (name.replace("^", "_") + ".qasm")
        if least is None or least > most or not path.exists():
            continue
        program = Program.of_circuit(Circuit.from_qasm(path.read_text()))
        Pipeline.parse(MERGED).run(program, Context())
        merged = program.only_circuit
        cells, best = [name, str(merged.stats().t_count)], merged.stats().t_count
        start = time.process_time()
        for method in ("tohpe", "fasttodd"):
            for gadgets in ("false", "true"):
                program = Program.of_circuit(merged)
                text = f"reduce-t-count{{gadgets={gadgets},method={method}}}"
                Pipeline.parse(text).run(program, Context())
                count = program.only_circuit.stats().t_count
                extra = program.only_circuit.num_qubits - merged.num_qubits
                cells.append(f"{count} ({extra})" if extra else str(count))
                best = min(best, count)
        cells += ["-" if t is None else str(t) for t in known]
        cells.append(f"{time.process_time() - start:.1f}")
        print("| " + " | ".join(cells) + " |", flush=True)
        worse += best > least
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 250))
