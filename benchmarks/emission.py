"""Every text of every profile, given to every consumer that the profile names.

    python benchmarks/emission.py [CIRCUITS] [--json FILE] [--cases "ibm;braket-iqm"]
        [--most STATEMENTS] [--sample N --seed S]

CIRCUITS is a folder of OpenQASM files. Each circuit is written in each profile, translated to the
machine's gates first where the profile is one of a machine, and its text is given to the real
parser and simulator of each consumer that the profile names (``qcomp.consumers``). Up to 12 qubits
the consumer's exact distribution is compared with that of the circuit before any translation; the
largest total variation is reported. A text counts as accepted only if all of its consumers take it.

The JSON holds every file's result and is read again on the next run: texts that have not changed
since are not given to the consumers again, so a run that was stopped goes on where it was. With
``--most`` texts of more statements are left for another run, and counted as such.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import qcomp
from qcomp.atomic import atomic_file
from qcomp.backends.openqasm3.profiles import PROFILES
from qcomp.backends.openqasm3.writer import write_text
from qcomp.consumers import CONSUMERS, accept
from qcomp.errors import QcompError, TargetError
from qcomp.frontends.openqasm.reader import OpenQasmFrontend
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import Layout
from qcomp.passes.map.to_basis import ToBasis
from qcomp.passmanager import Context
from qcomp.target import get_target

GOAL = 1e-6
PARAMETERS = 3


@dataclass(frozen=True)
class Case:
    """One way of writing a circuit.

    Attributes:
        name: Its name.
        profile: The profile.
        target: The target whose pipeline (effort fast) makes the circuit one of its machine.
        gates: Where there is no target, the gates it is translated to; () for its own.
        limits: Those of them whose angles the machine limits.
        mapped: Whether the circuit counts as mapped, qubit i on physical qubit i.
        params: Whether some of its angles become sums with parameters.
    """

    name: str
    profile: str
    target: str = ""
    gates: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    mapped: bool = False
    params: bool = False

    @property
    def consumers(self) -> tuple[str, ...]:
        """Who must accept it."""
        profile = PROFILES[self.profile]
        judged = profile.judge and (self.mapped or profile.physical == "always")
        return (*profile.consumers, *((profile.judge,) if judged else ()))


FRACTIONAL = ("cz", "rz", "sx", "x", "rx", "rzz")
CASES: tuple[Case, ...] = (
    Case("full", "full"),
    Case("qasm2", "qasm2"),
    Case("portable", "portable"),
    Case("portable-param", "portable-param", params=True),
    Case("ibm", "ibm", "ibm-heron"),
    Case("ibm, mapped", "ibm", "ibm-heron", mapped=True),
    Case("ibm, parameters", "ibm", "ibm-heron", params=True),
    Case("ibm, ecr", "ibm", "ibm-eagle"),
    Case("ibm, fractional", "ibm", gates=FRACTIONAL, limits=("rzz",)),
    Case("braket", "braket"),
    Case("braket, parameters", "braket", params=True),
    Case("braket-rigetti", "braket-rigetti", "rigetti-ankaa", mapped=True),
    Case("braket-rigetti, cz", "braket-rigetti", "rigetti-cepheus", mapped=True),
    Case("braket-iqm", "braket-iqm", "iqm-garnet", mapped=True),
    Case("braket-ionq", "braket-ionq", "ionq-aria"),
    Case("braket-ionq, zz", "braket-ionq", "ionq-forte"),
    Case("ionq", "ionq", "ionq-aria"),
    Case("quantinuum", "quantinuum", "quantinuum-h2"),
    Case("quantinuum, ZZ", "quantinuum", gates=("r", "rz", "zzmax")),
)


def with_parameters(circuit: Circuit) -> Circuit:
    """Return the circuit with every second angle turned into a sum with a parameter."""
    names = tuple(f"a{i}" for i in range(PARAMETERS))
    rows = [[(i, 1.0)] for i in range(PARAMETERS)] + [[(0, 0.5), (1, -0.25)]]
    new = circuit.with_params(names)
    forms, index = new.forms.append(rows)

    def changed(run: Any) -> Any:
        form = run.form.copy()
        places = np.arange(0, len(form), 2)
        form[places] = index[(places // 2) % len(index)]
        return run.with_angles(run.frac, run.rem, form)

    return new.map_runs(changed).copy(forms=forms)


def emitted(circuit: Circuit, case: Case) -> tuple[str, Circuit]:
    """Return (the text, the circuit whose distribution it must have).

    Raises:
        TargetError: If the profile cannot say what the circuit holds.
    """
    wanted = with_parameters(circuit) if case.params else circuit
    new = wanted
    if case.target:
        pipeline = get_target(case.target).without_mapping().pipeline("fast")
        made = qcomp.optimize(wanted, pipeline=pipeline)
        assert isinstance(made, Circuit)
        new = made
    elif case.gates:
        new = ToBasis(gates=case.gates, limits=case.limits).run(wanted, Context())
    if case.mapped:
        new = new.copy()
        new.layout = Layout.trivial(circuit.num_qubits, circuit.num_qubits)
    return write_text(new, case.profile), wanted


def check(circuit: Circuit, case: Case, known: dict[str, Any] | None, most: int) -> dict[str, Any]:
    """Return what came of one circuit in one case.

    Args:
        circuit: The circuit.
        case: How it is written.
        known: The result of an earlier run.
        most: Statements of a text that is given to consumers; 0 for any number.
    """
    try:
        text, wanted = emitted(circuit, case)
    except TargetError as error:
        return {"refused": f"{error.what} ({error.why})" if error.why else error.what}
    sha = hashlib.sha256(text.encode()).hexdigest()
    statements = text.count(";\n") + text.count("},\n")
    found: dict[str, Any] = {"sha256": sha, "statements": statements, "consumers": {}}
    if case.profile == "ionq":
        found["gates"] = len(json.loads(text)["circuit"])
        return found
    if known is not None and known.get("sha256") == sha:
        found["consumers"] = {
            name: entry
            for name, entry in known["consumers"].items()
            if entry["version"] == CONSUMERS[name].version
            and entry["accepted"]
            and (entry["distance"] or 0.0) <= GOAL
        }
    if most and statements > most:
        return found
    for name in case.consumers:
        if name in found["consumers"]:
            continue
        start = time.process_time()
        answer = accept(text, name, wanted=wanted)
        found["consumers"][name] = {
            "version": answer.version,
            "accepted": answer.accepted,
            "distance": answer.distance,
            "why": answer.why,
            "seconds": round(time.process_time() - start, 3),
        }
    return found


def summary(results: dict[str, dict[str, Any]], cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return a row for each case: texts, accepted, compared, the largest distance."""
    rows = []
    for case in cases:
        entries = [e for key, e in results.items() if key.partition("/")[0] == case.name]
        texts = [e for e in entries if "refused" not in e]
        done = [e for e in texts if set(case.consumers) <= set(e["consumers"])]
        answers = [e["consumers"][name] for e in done for name in case.consumers]
        distances = [a["distance"] for a in answers if a["distance"] is not None]
        rows.append(
            {
                "case": case.name,
                "consumers": list(case.consumers),
                "texts": len(texts),
                "refused": len(entries) - len(texts),
                "checked": len(done) if case.consumers else 0,
                "accepted": sum(
                    all(e["consumers"][name]["accepted"] for name in case.consumers) for e in done
                ),
                "compared": len(distances),
                "largest": max(distances, default=0.0),
                "seconds": round(sum(a["seconds"] for a in answers), 1),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the summary as lines of Markdown."""
    lines = [
        "| profile | consumers | texts | checked | accepted | distributions | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = f"{100 * row['accepted'] / row['checked']:.0f} %" if row["checked"] else "-"
        largest = f"{row['largest']:.0e}" if row["compared"] else "-"
        lines.append(
            f"| {row['case']} | {', '.join(row['consumers']) or 'none public'} | {row['texts']} "
            f"| {row['checked']} | {share} | {row['compared']} | {largest} |"
        )
    return lines


def failures(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each text that a consumer rejected, or saw something else in."""
    lines = []
    for key, entry in results.items():
        for name, answer in entry.get("consumers", {}).items():
            if not answer["accepted"]:
                lines.append(f"{key}: {name} rejects it: {answer['why']}")
            elif answer["distance"] is not None and answer["distance"] > GOAL:
                lines.append(f"{key}: {name} sees another distribution: {answer['distance']:.2g}")
    return lines


def run(
    files: Sequence[Path], cases: Sequence[Case], out: Path | None, most: int
) -> dict[str, dict[str, Any]]:
    """Check every file in every case; write the results as they come."""
    results: dict[str, dict[str, Any]] = {}
    if out is not None and out.is_file():
        results = json.loads(out.read_text(encoding="utf-8"))["results"]
    for count, path in enumerate(files, 1):
        try:
            circuit = OpenQasmFrontend().read(path).only_circuit
        except QcompError as error:
            raise SystemExit(f"{path}: {error}") from None
        for case in cases:
            key = f"{case.name}/{path.stem}"
            results[key] = check(circuit, case, results.get(key), most)
        if out is not None:
            save(out, results, cases)
        print(f"{count}/{len(files)} {path.stem}", file=sys.stderr)
    return results


def save(out: Path, results: dict[str, dict[str, Any]], cases: Sequence[Case]) -> None:
    """Write the results."""
    data = {"summary": summary(results, CASES), "results": results}
    with atomic_file(out) as path:
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run and print; exit code 1 when a text is rejected or means something else."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/bench/circuits"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", default="")
    parser.add_argument("--most", type=int, default=0)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wanted = [part.strip() for part in options.cases.split(";") if part.strip()]
    cases = [case for case in CASES if not wanted or case.name in wanted]
    files = sorted(options.folder.glob("*.qasm"), key=lambda path: path.stat().st_size)
    if not files or not cases:
        raise SystemExit(f"no .qasm files in {options.folder}, or no such case")
    if options.sample:
        rng = np.random.default_rng(options.seed)
        files = [files[i] for i in sorted(rng.permutation(len(files))[: options.sample])]
    missing = {name for case in cases for name in case.consumers if not CONSUMERS[name].installed}
    if missing:
        raise SystemExit(f"not installed: {', '.join(sorted(missing))}")
    results = run(files, cases, options.json, options.most)
    rows = summary(results, cases)
    print("\n".join(table(rows)))
    for row in rows:
        if row["refused"]:
            print(f"{row['case']}: {row['refused']} circuits that the profile cannot say")
    wrong = failures(results)
    print("\n".join(wrong) if wrong else "every text that was checked is accepted and the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
