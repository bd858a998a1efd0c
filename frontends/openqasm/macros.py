"""Gate definitions of straight-line text, written out in its text, for the scanner to read.

A program's own gates would send all of it through the grammar. Where a definition is a list of
gates, each call is replaced by its statements here, at some hundred thousand calls a second, and
the scanner reads the result. Whatever is not plainly such a text, or could mean something else when
written out, gives None: then the grammar decides, and its errors have the lines of the source.

Cost: linear in the text that comes out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.frontends.openqasm.limits import MAX_EXPANDED_GATES
from qcomp.frontends.openqasm.scanner import scan
from qcomp.frontends.openqasm.symbols import QELIB1
from qcomp.ir.circuit import Circuit
from qcomp.ir.definitions import definition
from qcomp.ir.gates import BY_NAME, stdgates_names
from qcomp.qasm_words import RESERVED

__all__ = ["written_out"]

_MAX_TEXT = 1 << 28
_ANGLES = ("0.3", "0.71", "1.13", "1.9")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DEFINITION = re.compile(
    r"\bgate\s+(?P<name>[A-Za-z_]\w*)\s*(?:\((?P<params>[^(){}]*)\))?"
    r"\s*(?P<args>[A-Za-z_][\w\s,]*)\{(?P<body>[^{}]*)\}",
    re.ASCII,
)
_CALL = re.compile(r"([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*([^()]*)", re.ASCII)
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WIRE = re.compile(r"([A-Za-z_]\w*)\s*\[\s*(\d{1,9})\s*\]", re.ASCII)
_ATOM = re.compile(r"-?\s*(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|[A-Za-z_]\w*)")
_ANGLE = re.compile(r"[\w\s.+\-*/]*", re.ASCII)
_HEADER = re.compile(r'\ufeff?\s*OPENQASM\s+[\d.]+\s*;(?:\s*include\s*"[^"\n]*"\s*;)?')
_DECLARES = frozenset({"qreg", "creg", "qubit", "bit", "input"})
_TAKEN = RESERVED | stdgates_names() | frozenset(QELIB1)
_NEVER = frozenset({"barrier", "measure", "reset", "ctrl", "negctrl", "inv", "pow", "opaque"})


@dataclass(frozen=True, slots=True)
class _Macro:
    """A definition: its statements as a format string over operands and angles.

    Attributes:
        template: Text with ``{0}`` .. for operands, then angles.
        operands: Their number.
        angles: Their number.
        alone: For each angle whether it only stands alone, so that any expression may replace it.
        size: Statements that it becomes.
    """

    template: str
    operands: int
    angles: int
    alone: tuple[bool, ...]
    size: int


def written_out(text: str) -> tuple[str, str] | None:
    """Return the text without gate definitions of its own, each call replaced by its statements.

    Args:
        text: A program.

    Returns:
        (the text, a text that calls every definition once, to see whether they are well-formed);
        None when there are no definitions, or anything that is not straight-line gates.
    """
    if "gate" not in text or any(mark in text for mark in ("@", "#", "opaque", "// layout")):
        return None
    plain = _COMMENT.sub(" ", text)
    header = _HEADER.match(plain)
    if header is None:
        return None
    macros: dict[str, _Macro] = {}
    parts: list[str] = []
    last = 0
    for found in _DEFINITION.finditer(plain):
        name = found["name"]
        before = plain[: found.start()]
        if before.rstrip()[-1:] not in (";", "}") or re.search(rf"\b{name}\b", before):
            return None
        macro = None if name in macros or name in _TAKEN else _macro(found, macros)
        if macro is None:
            return None
        if name in BY_NAME and _is_the_tables(header[0], name, macro):
            return None
        macros[name] = macro
        parts.append(plain[last : found.start()])
        last = found.end()
    parts.append(plain[last:])
    rest = "\n".join(parts)
    if not macros or "{" in rest or "}" in rest:
        return None
    result = _expanded(rest, macros)
    return None if result is None else (result, header[0] + _trial(macros))


def _is_the_tables(header: str, name: str, macro: _Macro) -> bool:
    """Whether a definition may be the gate table's own, which is read back as that gate.

    Decided at some angles: where both agree the grammar is left to see whether they are the same.
    """
    made = scan(header + _trial({name: macro}, _ANGLES))
    row = BY_NAME[name]
    if made is None or (row.num_qubits, row.num_angles) != (macro.operands, macro.angles):
        return made is None
    meant = Circuit(row.num_qubits)
    values = dict(zip("tplg", map(float, _ANGLES), strict=True))
    for step in definition(name):
        meant.append(step.gate.name, step.qubits, [a.bind(values) for a in step.angles])
    a, b = meant.run, made.run
    return (
        bool(row.definition_text)
        and np.array_equal(a.code, b.code)
        and np.array_equal(a.qubit, b.qubit)
        and np.allclose(meant.angles_for((), a), made.angles_for((), b))
    )


def _trial(macros: dict[str, _Macro], angles: Sequence[str] = ("0.3",) * 4) -> str:
    """Return a register and a call of every definition on it."""
    most = max(macro.operands for macro in macros.values())
    wires = [f"macro_wires[{i}]" for i in range(most)]
    calls = [
        macro.template.format(*wires[: macro.operands], *_first(angles, macro.angles))
        for macro in macros.values()
        if macro.template
    ]
    return f"qreg macro_wires[{most}];" + "".join(f"{call};" for call in calls)


def _first(angles: Sequence[str], count: int) -> list[str]:
    return [angles[i % len(angles)] for i in range(count)]


def _expanded(text: str, macros: dict[str, _Macro]) -> str | None:
    out: list[str] = []
    length = statements = 0
    *whole, tail = text.split(";")
    if tail.strip():
        return None
    for statement in whole:
        word = _WORD.match(statement.lstrip())
        macro = macros.get(word[0]) if word else None
        if macro is None:
            declares = word is not None and word[0] in _DECLARES
            if declares and not macros.keys().isdisjoint(_WORD.findall(statement)):
                return None
            out.append(statement)
            continue
        call = _CALL.fullmatch(statement.strip())
        if call is None:
            return None
        wires = _wires(call[3])
        angles = _angles(call[2])
        if wires is None or angles is None:
            return None
        if len(wires) != macro.operands or len(angles) != macro.angles:
            return None
        for angle, alone in zip(angles, macro.alone, strict=True):
            if not alone and _ATOM.fullmatch(angle) is None:
                return None
        made = macro.template.format(*wires, *angles)
        length += len(made)
        statements += macro.size
        if length > _MAX_TEXT or statements > MAX_EXPANDED_GATES:
            return None
        if made:
            out.append(made)
    return ";".join(out) + ";"


def _wires(text: str) -> list[str] | None:
    """Return indexed operands, all different; None for anything else, whole registers too."""
    wires: dict[tuple[str, int], str] = {}
    parts = text.split(",")
    for part in parts:
        found = _WIRE.fullmatch(part.strip())
        if found is None:
            return None
        wires[found[1], int(found[2])] = f"{found[1]}[{int(found[2])}]"
    return list(wires.values()) if len(wires) == len(parts) else None


def _angles(text: str | None) -> list[str] | None:
    if text is None or not text.strip():
        return []
    angles = [part.strip() for part in text.split(",")]
    if any(not angle or _ANGLE.fullmatch(angle) is None for angle in angles):
        return None
    return angles


def _macro(found: re.Match[str], macros: dict[str, _Macro]) -> _Macro | None:
    """Return a definition as a macro; None when it is not a list of gates on its own operands."""
    params = [part.strip() for part in (found["params"] or "").split(",") if part.strip()]
    args = [part.strip() for part in found["args"].split(",")]
    names = [*args, *params]
    if len(set(names)) != len(names) or any(_NAME.fullmatch(n) is None for n in names):
        return None
    if any(name in RESERVED for name in names):
        return None
    place = {name: i for i, name in enumerate(names)}
    alone = dict.fromkeys(params, True)
    statements: list[str] = []
    size = 0
    *whole, tail = found["body"].split(";")
    if tail.strip():
        return None
    for statement in whole:
        if not statement.strip():
            continue
        call = _CALL.fullmatch(statement.strip())
        if call is None or call[1] in _NEVER or call[1] in place:
            return None
        angles = _angles(call[2])
        wires = [part.strip() for part in call[3].split(",")] if call[3].strip() else []
        if angles is None or any(w not in args for w in wires) or len(set(wires)) != len(wires):
            return None
        if any(word not in params and word != "pi" for a in angles for word in _words(a)):
            return None
        for angle in angles:
            for param in params:
                if angle != param and param in _words(angle):
                    alone[param] = False
        slots = [f"{{{place[w]}}}" for w in wires]
        inner = macros.get(call[1])
        values = [_slotted(angle, place) for angle in angles]
        if inner is None:
            head = f"\n{call[1]}({','.join(values)}) " if call[2] is not None else f"\n{call[1]} "
            statements.append(head + ",".join(slots))
            size += 1
            continue
        if len(wires) != inner.operands or len(angles) != inner.angles:
            return None
        for angle, free in zip(angles, inner.alone, strict=True):
            if not free and angle not in params and _ATOM.fullmatch(angle) is None:
                return None
            if not free and angle in params:
                alone[angle] = False
        if inner.template:
            statements.append(inner.template.format(*slots, *values))
        size += inner.size
        if size > MAX_EXPANDED_GATES:
            return None
    template = ";".join(statements)
    return _Macro(template, len(args), len(params), tuple(alone[p] for p in params), size)


def _words(angle: str) -> list[str]:
    """Return the names in an angle; the letter of an exponent is none."""
    return re.findall(r"(?<![\w.])[A-Za-z_]\w*", angle)


def _slotted(angle: str, place: dict[str, int]) -> str:
    """Return an angle with its parameters as slots, at the front of a product of two.

    There a negative number may stand: the scanner reads ``-0.3*2`` and not ``2*-0.3``.
    """
    if "e-" not in angle and "E-" not in angle:
        angle = re.sub(
            r"(?<![\w.*/])(\d[\w.]*|pi)\s*\*\s*([A-Za-z_]\w*)(?!\w)",
            lambda m: f"{m[2]}*{m[1]}" if m[2] in place else m[0],
            angle,
        )
    return re.sub(
        r"(?<![\w.])[A-Za-z_]\w*",
        lambda m: f"{{{place[m[0]]}}}" if m[0] in place else m[0],
        angle,
    )
