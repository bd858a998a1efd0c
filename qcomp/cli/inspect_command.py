"""``qcomp inspect``: what a source or an artifact is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qcomp.cli.common import JsonOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect", help=_HELP)(inspect_command)


_HELP = """Show what a source or an artifact holds: inputs, operators, circuits, sizes.

Examples:

  qcomp inspect model.onnx

  qcomp inspect model.onnx --nodes

  qcomp inspect circuit.qasm --draw

  qcomp inspect out
"""


def inspect_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="ONNX, OpenQASM, or an artifact.")
    ],
    nodes: Annotated[
        bool, typer.Option("--nodes", help="List the operators with the names patterns match.")
    ] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Draw the circuits.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.artifact_format import MANIFEST, all_stages
    from qcomp.cli.common import emit_json, show_runs, show_table
    from qcomp.runtime.artifact import load

    path = Path(source)
    if len(source) < 4096 and path.is_dir() and (path / MANIFEST).is_file():
        artifact = load(path)
        data: dict[str, Any] = {"artifact": source, **artifact.manifest}
        circuits = artifact.circuits
    else:
        from qcomp.driver import read

        program = read(source)
        data, circuits = _describe(program), program.circuits
        if nodes:
            data["node_names"] = _nodes(program)
    data["circuits"] = {name: circuit.stats().to_dict() for name, circuit in circuits.items()}
    if json_output:
        emit_json(data)
        return
    for key in ("artifact", "targets", "opset", "nodes", "weight_bytes", "operators", "notes"):
        if data.get(key):
            print(f"{key}: {data[key]}")
    for key in ("inputs", "outputs"):
        rows = [(v["name"], str(v["dtype"]), str(v["shape"])) for v in data.get(key, [])]
        if rows:
            show_table((key, "dtype", "shape"), rows)
    if data.get("node_names"):
        rows = [(n["name"], n["op"], ", ".join(n["outputs"])) for n in data["node_names"]]
        show_table(("operator", "type", "outputs"), rows)
    for depth, stage in all_stages(data.get("stages", [])):
        print(f"{'  ' * depth}stage {stage['kind']}: {stage.get('file') or stage['node']}")
    if runs := data.get("plan", {}).get("runs"):
        show_runs(runs)
        print(f"values between graph and circuits: {data['plan']['crossings']}")
    if circuits:
        counts = list(data["circuits"].values())
        table = [(key, *(count[key] for count in counts)) for key in counts[0]]
        show_table(("count", *data["circuits"]), table)
    if draw:
        for circuit in circuits.values():
            print(circuit.draw())


def _describe(program: Any) -> dict[str, Any]:  # noqa: ANN401  a Program
    from collections import Counter

    from qcomp.passmanager import counts

    graph = program.model.graph
    operators = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph
    )
    total = counts(program)
    return {
        "source": program.source,
        "opset": {domain or "ai.onnx": version for domain, version in graph.opset_imports.items()},
        "nodes": total["nodes"],
        "weight_bytes": total["weight_bytes"],
        "operators": dict(operators.most_common()),
        "inputs": [_value(v) for v in graph.inputs if not v.is_initializer()],
        "outputs": [_value(v) for v in graph.outputs],
        "notes": list(program.notes),
    }


def _nodes(program: Any) -> list[dict[str, Any]]:  # noqa: ANN401  a Program
    """Name, type and outputs of each operator, named as ``--exclude`` and the report name them."""
    from qcomp.node_rules import name_nodes

    name_nodes(program.model.graph)
    return [
        {
            "name": node.name,
            "op": f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
            "outputs": [value.name for value in node.outputs if value.name],
        }
        for node in program.model.graph
    ]


def _value(value: Any) -> dict[str, object]:  # noqa: ANN401  an onnx_ir.Value
    shape = (
        None if value.shape is None else [d if isinstance(d, int) else str(d) for d in value.shape]
    )
    return {"name": value.name, "dtype": str(value.dtype), "shape": shape}
