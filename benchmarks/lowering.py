"""Classical things as circuits: gates, CX gates, depth and CPU seconds, beside other tools.

    python -m benchmarks.lowering --parts unitaries,states --limit 8 --json FILE
    python -m benchmarks.lowering --parts unitaries --python bqskit=PYTHON

Each part is a file ``lowering_PART.py`` of this folder with ``rows(limit)``, ``limit`` the most
qubits. A table a part: ours beside each peer's CX gates, the ratio to the best of them, misses
first; the geometric mean of the ratios at the end. How circuits are counted is said in
``lowering_rows.py``. ``--json`` adds to a file: parts that are not measured now stay.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lowering_rows import OURS, PYTHONS, SECONDS, Row

PARTS = (
    "unitaries",
    "multi_controlled",
    "states",
    "images",
    "encodings",
    "algorithms",
    "layers",
)
PACKAGES = ("qiskit", "pennylane")


def find(names: Sequence[str]) -> list[str]:
    """Return the parts that are asked for.

    Raises:
        SystemExit: If one is unknown or has no file.
    """
    for name in names:
        if name not in PARTS:
            raise SystemExit(f"there is no part '{name}'; parts are {', '.join(PARTS)}")
        if importlib.util.find_spec(f"benchmarks.lowering_{name}") is None:
            raise SystemExit(f"the part '{name}' is not measured yet: no lowering_{name}.py")
    return list(names)


Case = tuple[str, int]


def grouped(rows: Sequence[Row]) -> dict[Case, dict[str, Row]]:
    """Return (construction, n) -> tool -> row, in the order that rows came in."""
    out: dict[Case, dict[str, Row]] = {}
    for row in rows:
        out.setdefault((row.construction, row.n), {})[row.tool] = row
    return out


def is_peer(tool: str) -> bool:
    """Whether ours is held against a tool's rows."""
    return tool != OURS and not tool.startswith(f"{OURS} ")


def ratio(tools: dict[str, Row]) -> float | None:
    """Return our CX gates over the best peer's, of which none counts as one; None without both."""
    ours = tools[OURS].two_qubit if OURS in tools else None
    counts = [
        row.two_qubit for tool, row in tools.items() if is_peer(tool) and row.two_qubit is not None
    ]
    if ours is None or not counts:
        return None
    return max(ours, 1) / max(min(counts), 1)


def geometric_mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean; None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def table(rows: Sequence[Row]) -> str:
    """Return a part's table in Markdown, misses first, and its geometric mean."""
    cases = grouped(rows)
    tools = [t for t in dict.fromkeys(row.tool for row in rows) if t != OURS]
    lines = [
        f"| construction | n | CX | gates | depth | CPU s | {' | '.join(tools)} | ratio | |",
        "|---|" + "---|" * (len(tools) + 7),
    ]

    def missed(case: Case) -> bool:
        found = ratio(cases[case])
        return found is not None and found > 1

    for case in sorted(cases, key=lambda case: not missed(case)):
        found = cases[case]
        ours = found.get(OURS)
        first = (
            [_count(ours.two_qubit), _count(ours.gates), _count(ours.depth), f"{ours.cpu_s:.2f}"]
            if ours is not None
            else [""] * 4
        )
        peers = [_peer(found.get(tool)) for tool in tools]
        share = ratio(found)
        words = [f"**{share:.2f}**" if share and share > 1 else f"{share:.2f}" if share else ""]
        note = "; ".join(row.note for row in found.values() if row.note)
        lines.append(f"| {' | '.join([case[0], str(case[1]), *first, *peers, *words, note])} |")
    shares = [share for case in cases if (share := ratio(cases[case])) is not None]
    mean = geometric_mean(shares)
    if mean is not None:
        over = sum(share > 1 for share in shares)
        lines += [
            "",
            f"CX gates over the best peer's: {mean:.3f} in the geometric mean of {len(shares)} "
            f"cases, above it in {over}.",
        ]
    return "\n".join(lines)


def _count(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def _peer(row: Row | None) -> str:
    return "" if row is None else f"{_count(row.two_qubit)} ({row.cpu_s:.2f} s)"


def versions() -> dict[str, str]:
    """Return the peers' versions in this environment."""
    out = {}
    for name in PACKAGES:
        if importlib.util.find_spec(name) is not None:
            out[name] = importlib.metadata.version(name)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the parts and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="unitaries", help=f"of {','.join(PARTS)}")
    parser.add_argument("--limit", type=int, default=10, help="most qubits")
    parser.add_argument("--json", type=Path, help="file that the rows are added to")
    parser.add_argument("--seconds", type=float, default=SECONDS["limit"], help="a peer's circuit")
    parser.add_argument(
        "--python", action="append", default=[], metavar="TOOL=PYTHON", help="a peer's own Python"
    )
    given = parser.parse_args(argv)
    SECONDS["limit"] = given.seconds
    PYTHONS.update(text.split("=", 1) for text in given.python)
    known: dict[str, Any] = (
        json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    )
    for name in find(given.parts.split(",")):
        rows = importlib.import_module(f"benchmarks.lowering_{name}").rows(given.limit)
        print(f"\n## {name}\n\n{table(rows)}")
        sys.stdout.flush()
        known[name] = {"versions": versions(), "rows": [row.to_dict() for row in rows]}
        if given.json:
            given.json.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
