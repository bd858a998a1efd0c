"""``qcomp targets``: what machines there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.common import JsonOption

if TYPE_CHECKING:
    from qcomp.integer_rules import IntegerRules
    from qcomp.target import Target

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("targets", help=_HELP)(targets_command)


_HELP = """List the targets, or explain one: its gates, its couplings, its figures, its pipelines.

Examples:

  qcomp targets

  qcomp targets ibm-heron

  qcomp targets machine.json
"""


def targets_command(
    name: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="One to explain; a JSON file too.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import emit_json, show_table
    from qcomp.target import get_target, target_names

    targets = [get_target(n) for n in ([name] if name else target_names())]
    if json_output:
        emit_json([_json(target, whole=name is not None) for target in targets])
    elif name:
        _explain(targets[0])
    else:
        rows = [(t.name, t.kind, _qubits(t), t.title) for t in targets]
        show_table(("target", "kind", "qubits", "what it is"), rows)


def _qubits(target: Target) -> str:
    hardware = target.hardware
    if hardware is None:
        return "any" if target.kind == "circuit" else ""
    return str(len(hardware.present))


def _json(target: Target, whole: bool) -> dict[str, Any]:
    """Return a target as JSON has it; its device only where one target was asked for."""
    fields = ("name", "title", "description", "kind", "backend", "basis", "profile", "requires")
    native, hardware = target.native, target.hardware
    found: dict[str, Any] = {key: getattr(target, key) for key in fields}
    if target.kind == "circuit":
        found["native"] = {
            "one_qubit": native.one_qubit,
            "virtual": native.virtual,
            "fractional": native.fractional,
            "limits": [
                {"gate": x.gate, "angle": x.angle, "least": x.least, "most": x.most, "step": x.step}
                for x in native.limits
            ],
            "conventions": native.conventions,
        }
        found["qubits"] = None if hardware is None else len(hardware.present)
        if whole:
            found["device"] = None if hardware is None else hardware.to_json()
    elif target.integers is not None:
        rules = {key: getattr(target.integers, key) for key in target.integers.__slots__}
        found["integers"] = {**rules, "fixed": dict(target.integers.fixed)}
    return {**found, "pipelines": dict(target.pipelines)}


def _explain(target: Target) -> None:
    """Print all that is known of a target."""
    from qcomp.cli.common import show_table
    from qcomp.target_files import pipeline_lines

    print(f"{target.name}: {target.title}\n\n{target.description}\n")
    rows = [
        ("gates", ", ".join(target.basis)),
        ("without a pulse", ", ".join(target.native.virtual)),
        ("fractional gates", ", ".join(target.native.fractional)),
        ("limits", "; ".join(_limit(target)) if target.native.limits else ""),
        ("conventions", target.native.conventions),
        ("written as", target.profile if target.kind == "circuit" else ""),
        ("needs", ", ".join(target.requires)),
    ]
    rows = [row for row in rows if row[1]] + _device_rows(target) + _integer_rows(target)
    show_table(("", target.name), rows)
    for effort, text in target.pipelines.items():
        print(f"\npipeline ({effort}):")
        for line in pipeline_lines(text):
            print(f"  {line}")


def _weights(rules: IntegerRules, channels: str) -> str:
    """What a machine's weights are."""
    if rules.weight == "e4m3":
        return "4 bits with a scale a group, each of them e4m3 times its channel's scale"
    return f"{channels}{rules.weight} a tensor"


def _integer_rows(target: Target) -> list[tuple[str, str]]:
    """Return the lines about the integers that a classical machine takes."""
    rules = target.integers
    if rules is None:
        return []
    middle = "symmetric, zero point in the middle" if rules.symmetric else "with a zero point"
    scales = ", scales are powers of two" if rules.power_of_two else ""
    channels = f"s8 a channel: {', '.join(rules.per_channel)}; " if rules.per_channel else ""
    stored = ", ".join((*rules.stored, *rules.stored_if_read)) or "none"
    rows = [
        ("provider", rules.provider),
        ("activations", f"{rules.activation}, {middle}, one scale a tensor{scales}"),
        ("weights", _weights(rules, channels)),
        ("biases", rules.bias + "".join(f", float of {name}" for name in rules.float_bias)),
        ("integer layers", ", ".join(rules.weighted)),
        ("between them", ", ".join(rules.between)),
        ("move integers", ", ".join(rules.moves)),
        ("products", "of two activations too" if rules.products else "with weights only"),
        ("integer results", stored),
        ("set by the machine", ", ".join(f"{k}: {s:g}, {z}" for k, (s, z) in rules.fixed.items())),
        *(("documented", source) for source in rules.sources),
    ]
    return [row for row in rows if row[1]]


def _limit(target: Target) -> list[str]:
    return [
        f"{x.gate} angle {x.angle} from {x.least:g} pi to {x.most:g} pi"
        + (f" in steps of {x.step:g} pi" if x.step else "")
        for x in target.native.limits
    ]


def _device_rows(target: Target) -> list[tuple[str, str]]:
    """Return the lines about a target's qubits: how many, how coupled, how good."""
    import numpy as np

    hardware = target.hardware
    if hardware is None:
        return [("qubits", "any, coupled as you please")] if target.kind == "circuit" else []
    present = hardware.present
    couplings = f"{len(hardware.pairs)} directed pairs"
    if hardware.is_all_to_all:
        couplings = "all with all"
    elif hardware.is_symmetric:
        couplings = f"{len(hardware.pairs) // 2} pairs, both directions"
    rows = [
        ("qubits", f"{len(present)}, numbered {present.min()} to {present.max()}"),
        ("couplings", couplings),
    ]
    for gate in dict.fromkeys((*hardware.errors, *hardware.durations)):
        parts = []
        for what, values, unit in (
            ("error", hardware.error(gate), ""),
            ("time", hardware.duration(gate), " s"),
        ):
            known = values[np.isfinite(values)]
            parts.append(f"{what} {np.median(known):.3g}{unit}" if len(known) else "")
        rows.append((gate, ", ".join(filter(None, parts))))
    for what, values in (("T1", hardware.t1), ("T2", hardware.t2)):
        known = values[np.isfinite(values)]
        if len(known):
            rows.append((what, f"{np.median(known):.3g} s"))
    if hardware.dt:
        grid = ", ".join(f"{key} {value}" for key, value in hardware.timing.items())
        rows.append(("sample", f"{hardware.dt:.4g} s; {grid}"))
    rows += [("source", note) for note in hardware.notes]
    return rows
