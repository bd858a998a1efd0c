"""The tables of the circuit benchmark, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuit_counts import COLUMNS, FAMILIES, Counts, geometric_mean

__all__ = ["family_results", "one_line", "report", "write_between", "wrong"]

GOALS = {
    "clifford_t": (0.64, 0.83, 0.57),
    "qml_variational": (0.88, 0.68, 0.82),
    "algorithm": (0.69, 0.76, 0.54),
    "device100": (0.52, 0.57, 0.63),
}
"""Gates, two-qubit gates and rotations that the default effort is to reach on the public set."""

GOALS_MAX = {
    "clifford_t": (0.60, 0.78),
    "qml_variational": (0.82, 0.57),
    "algorithm": (0.65, 0.72),
    "device100": (0.48, 0.56),
}
"""Gates and two-qubit gates that ``max`` is to reach there in 60 s a circuit."""

JUDGED = ("gates", "two_qubit", "rotations")
WORDS = {"gates": "gates", "two_qubit": "two-qubit", "rotations": "rotations"}
PUBLISHED = {"gates": "gates", "two_qubit": "two_q", "rotations": "nonclifford"}
LARGE = 1000
"""Gates from which on CPU seconds are held against a peer's."""

Circuits = Sequence[Mapping[str, Any]]


def one_line(before: Counts, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a circuit's counts by tool in one line."""
    parts = [f"{before.gates}/{before.two_qubit}/{before.rotations}"]
    for tool, row in results.items():
        if "verdict" not in row:
            parts.append(f"{tool} none")
            continue
        verdict = row["verdict"]
        open_ = "not asked" if verdict["how"] == "not asked" else "undecided"
        word = {True: verdict["rung"], False: "WRONG", None: open_}[verdict["equal"]]
        counts = "/".join(str(row[key]) for key in JUDGED)
        parts.append(f"{tool} {counts} {row['cpu_s']:.3f} s {word}")
    return " | ".join(parts)


def tools_of(circuits: Circuits) -> list[str]:
    """Return the tools of a run, ours first."""
    return list(dict.fromkeys(tool for row in circuits for tool in row["tools"]))


def finished(circuits: Circuits, family: str, tool: str) -> list[Mapping[str, Any]]:
    """Return a family's circuits that a tool gave an output for."""
    return [
        row for row in circuits if row["family"] == family and "gates" in row["tools"].get(tool, {})
    ]


def ratio(rows: Circuits, tool: str, column: str) -> float | None:
    """Return the geometric mean of a column over the input."""
    return geometric_mean((row["tools"][tool][column], row["input"][column]) for row in rows)


def family_results(circuits: Circuits) -> dict[str, dict[str, dict[str, Any]]]:
    """Return family -> tool -> ratios over what it finished, and ours on the same circuits."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for family in FAMILIES:
        for tool in tools_of(circuits):
            rows = finished(circuits, family, tool)
            if not rows:
                continue
            entry: dict[str, Any] = {key: ratio(rows, tool, key) for key in COLUMNS}
            entry["circuits"] = len(rows)
            entry["cpu_s"] = sum(row["tools"][tool]["cpu_s"] for row in rows)
            if all("qcomp_default" in row["tools"] for row in rows):
                entry["ours_there"] = {key: ratio(rows, "qcomp_default", key) for key in JUDGED}
            out.setdefault(family, {})[tool] = entry
    return out


def _number(value: float | None, goal: float | None = None) -> str:
    if value is None:
        return "-"
    text = f"{value:.3f}"
    if goal is None:
        return text
    return f"{text} ({goal:.2f})" if value < goal + 0.005 else f"**{text}** ({goal:.2f})"


def _goals(family: str, tool: str) -> tuple[float | None, ...]:
    if tool == "qcomp_default":
        return GOALS[family]
    if tool == "qcomp_max":
        return (*GOALS_MAX[family], None)
    return (None, None, None)


def _family_table(results: Mapping[str, Any]) -> Iterable[str]:
    yield "| family | tool | circuits | gates | two-qubit | rotations | T | depth | CPU s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    sizes = Counter(row["family"] for row in results["circuits"])
    for family, tools in results["families"].items():
        for tool, entry in tools.items():
            cells = [
                _number(entry[key], goal)
                for key, goal in zip(JUDGED, _goals(family, tool), strict=True)
            ]
            cells += [_number(entry["t"]), _number(entry["depth"]), f"{entry['cpu_s']:.2f}"]
            done = f"{entry['circuits']} of {sizes[family]}"
            yield f"| {FAMILIES[family].title} | {tool} | {done} | {' | '.join(cells)} |"


def _published_table(circuits: Circuits, published: Circuits) -> Iterable[str]:
    """Yield a table of published figures over the same circuits, each in its own basis."""
    before = {row["name"]: row["input"] for row in circuits}
    family = {row["name"]: row["family"] for row in circuits}
    rows = [
        row for row in published
        if row["name"] in before and "gates" in row and row["tool"] != "input"
    ]  # fmt: skip
    yield "| family | tool | circuits | gates | two-qubit | rotations |"
    yield "|---|---|---|---|---|---|"
    for name in FAMILIES:
        for tool in sorted({row["tool"] for row in rows}):
            some = [row for row in rows if row["tool"] == tool and family[row["name"]] == name]
            if some:
                cells = [
                    _number(
                        geometric_mean(
                            (row[PUBLISHED[key]], before[row["name"]][key]) for row in some
                        )
                    )
                    for key in JUDGED
                ]
                yield f"| {FAMILIES[name].title} | {tool} | {len(some)} | {' | '.join(cells)} |"


def _times_table(circuits: Circuits) -> Iterable[str]:
    yield f"| tool | circuits of {LARGE} gates and more, CPU s | against Qiskit O3 there |" \
          " largest below, CPU ms |"  # fmt: skip
    yield "|---|---|---|---|"
    for tool in tools_of(circuits):
        rows = [row for row in circuits if "cpu_s" in row["tools"].get(tool, {})]
        large = [row for row in rows if row["input"]["gates"] >= LARGE]
        small = [row["tools"][tool]["cpu_s"] for row in rows if row not in large]
        total = sum(row["tools"][tool]["cpu_s"] for row in large)
        both = [row for row in large if "cpu_s" in row["tools"].get("qiskit_o3", {})]
        theirs = sum(row["tools"]["qiskit_o3"]["cpu_s"] for row in both)
        mine = sum(row["tools"][tool]["cpu_s"] for row in both)
        against = f"{mine / theirs:.2f}" if theirs else "-"
        yield f"| {tool} | {total:.2f} ({len(large)}) | {against} | " \
              f"{1000 * max(small, default=0.0):.0f} |"  # fmt: skip


def _rungs_table(circuits: Circuits) -> Iterable[str]:
    yield "| tool | outputs | known to be right, by rung | wrong | no rung decided |"
    yield "|---|---|---|---|---|"
    for tool in tools_of(circuits):
        rows = [row for row in circuits if "verdict" in row["tools"].get(tool, {})]
        verdicts = {row["name"]: row["tools"][tool]["verdict"] for row in rows}
        if all(verdict["how"] == "not asked" for verdict in verdicts.values()):
            continue
        rungs = Counter(verdict["rung"] for verdict in verdicts.values() if verdict["equal"])
        known = ", ".join(f"{rung} {count}" for rung, count in rungs.most_common())
        bad = [name for name, verdict in verdicts.items() if verdict["equal"] is False]
        open_ = [name for name, verdict in verdicts.items() if verdict["equal"] is None]
        yield f"| {tool} | {len(rows)} | {known} | {', '.join(bad) or 'none'} | " \
              f"{', '.join(open_) or 'none'} |"  # fmt: skip


def best_of_peers(row: Mapping[str, Any], key: str, published: Circuits) -> tuple[int, str] | None:
    """Return the least count of a circuit among the peers of the run, or the published ones."""
    found = [
        (result[key], tool)
        for tool, result in row["tools"].items()
        if "gates" in result and not tool.startswith("qcomp_")
    ]
    if not found:
        found = [
            (other[PUBLISHED[key]], other["tool"])
            for other in published
            if other["name"] == row["name"] and other["tool"] != "input" and "gates" in other
        ]
    return min(found, default=None)


def _wins_table(circuits: Circuits, published: Circuits) -> Iterable[str]:
    """Yield the circuits where a peer has less of something than the default effort."""
    yield "| circuit | count | input | qcomp default | qcomp max | best peer |"
    yield "|---|---|---|---|---|---|"
    for row in circuits:
        ours, most = row["tools"].get("qcomp_default"), row["tools"].get("qcomp_max")
        if ours is None:
            continue
        for key in JUDGED:
            best = best_of_peers(row, key, published)
            if best is not None and best[0] < ours[key]:
                yield f"| {row['name']} | {WORDS[key]} | {row['input'][key]} | {ours[key]} | " \
                      f"{most[key] if most else '-'} | {best[0]} {best[1]} |"  # fmt: skip


def _best_peer_table(circuits: Circuits, published: Circuits) -> Iterable[str]:
    """Yield what a user had who chose the best peer anew, and our tools' counts over that."""
    ours = [tool for tool in tools_of(circuits) if tool.startswith("qcomp_")]
    yield "| family | | gates | two-qubit | rotations |"
    yield "|---|---|---|---|---|"
    for family in FAMILIES:
        rows = [row for row in circuits if row["family"] == family]
        best = {
            (row["name"], key): found[0]
            for row in rows
            for key in JUDGED
            if (found := best_of_peers(row, key, published)) is not None
        }
        if not best:
            continue
        cells = [
            _number(
                geometric_mean(
                    (best[row["name"], key], row["input"][key])
                    for row in rows
                    if (row["name"], key) in best
                )
            )
            for key in JUDGED
        ]
        yield f"| {FAMILIES[family].title} | best peer over input | {' | '.join(cells)} |"
        for tool in ours:
            cells = [
                _number(
                    geometric_mean(
                        (row["tools"][tool][key], max(best[row["name"], key], 0.5))
                        for row in rows
                        if (row["name"], key) in best
                        and row["input"][key]
                        and "gates" in row["tools"].get(tool, {})
                    )
                )
                for key in JUDGED
            ]
            yield f"| {FAMILIES[family].title} | {tool} over best peer | {' | '.join(cells)} |"


def report(results: Mapping[str, Any], published: Circuits) -> str:
    """Return all tables.

    Args:
        results: ``families``, ``circuits`` and ``versions`` of a run.
        published: Rows of published figures: name, tool, gates, two_q, nonclifford.
    """
    circuits = results["circuits"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts = [
        "Output over input, geometric means (lower is better). In brackets the goal; bold: missed.",
        "",
        *_family_table(results),
        "",
        *([f"Versions: {versions}. A peer's mean is over the circuits that it finished.", ""]
          if versions else []),
        "CPU seconds from a tool's own circuit to its own circuit; imports, reading, writing, "
        "checking and kernel compilation apart.",
        "",
        *_times_table(circuits),
        "",
        "Outputs held against their inputs:",
        "",
        *_rungs_table(circuits),
        "",
    ]  # fmt: skip
    if published:
        parts += [
            "Figures that peers published for the same circuits, each in its own basis, cz as one "
            "gate:",
            "",
            *_published_table(circuits, published),
            "",
        ]
    wins = list(_wins_table(circuits, published))
    if published or versions:
        parts += ["The best peer chosen anew for each circuit and count:", ""]
        parts += [*_best_peer_table(circuits, published), ""]
        parts += [f"Where a peer still has less ({len(wins) - 2} counts):", "", *wins, ""]
    return "\n".join(parts)


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->`` in a file.

    Raises:
        ValueError: If the file lacks the markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    whole = path.read_text()
    if begin not in whole or end not in whole:
        raise ValueError(f"{path.name} has no {begin} and {end}")
    head, rest = whole.split(begin, 1)
    _, tail = rest.split(end, 1)
    path.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}")


def wrong(circuits: Circuits) -> list[str]:
    """Return the outputs that a check found to differ."""
    return [
        f"{row['name']} by {tool}: {result['verdict']['how']}"
        for row in circuits
        for tool, result in row["tools"].items()
        if "verdict" in result and result["verdict"]["equal"] is False
    ]
