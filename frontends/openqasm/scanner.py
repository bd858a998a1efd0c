"""The scanner: straight-line OpenQASM 2 and 3 text into a circuit, millions of gates a second.

It knows headers, the standard includes, registers, float inputs, gates of the gate table on
registers and indexed operands, angles that are affine in the inputs, measurement, reset and
barrier. Anything else, and anything wrong, makes it answer ``None``: then the grammar of the
reader gives the circuit or the error.

Cost: linear in the text, one pass; memory the arrays of the circuit plus a few megabytes.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.frontends.openqasm.layouts import (
    LayoutComment,
    free_register,
    layout_comment,
    placed,
)
from qcomp.frontends.openqasm.limits import MAX_BITS, MAX_EXPANDED_GATES, MAX_QUBITS
from qcomp.frontends.openqasm.scan_kernels import Status, scan_statements
from qcomp.frontends.openqasm.scan_text import Kinds, Output, State
from qcomp.frontends.openqasm.symbols import Symbols
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.definitions import definition
from qcomp.ir.forms import Forms
from qcomp.ir.gates import BY_NAME
from qcomp.ir.run import Run
from qcomp.kernels import KERNEL_THRESHOLD, LOADED_THRESHOLD

__all__ = ["scan", "scan_file"]

Text = bytes | mmap.mmap
Advance = Callable[[int], object]

_BYTES_PER_GATE = 16
_PLAIN_ROOM = 32
_PLAIN_BYTES = 128
"""Times KERNEL_THRESHOLD, the entries and the bytes up to which the plain form takes less time than
loading numba: half a megabyte of text. Times LOADED_THRESHOLD, the bytes from which on the compiled
form runs where the process has it."""

_CHUNK = 1 << 20
_MAX_GIVEN = 64

_NAME = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*"
_VERSION = re.compile(rb"OPENQASM\s+([23])(?:\.([01]))?\s*;")
_FLOAT = rb"input\s+float(?:\s*\[\s*64\s*\]\s*|\s+)"
_INPUTS = re.compile(rb"(?:" + _FLOAT + _NAME + rb"\s*;(?:[ \t\r\n]++|//[^\r\n]*+)*+)++")
"""Parameters that are declared in a row: circuits that are trained have as many as gates."""
_COMMENT_OR_INPUT = re.compile(rb"//[^\r\n]*|" + _FLOAT + rb"(" + _NAME + rb")\s*;")
_DECLARATIONS = re.compile(
    rb'include\s*"(?P<include>[^"\n]+)"\s*;'
    rb"|(?P<reg>[qc])reg\s+(?P<regname>" + _NAME + rb")\s*\[\s*(?P<regsize>\d{1,9})\s*\]\s*;"
    rb"|(?P<wire>qubit|bit)(?:\s*\[\s*(?P<size>\d{1,9})\s*\]\s*|\s+)"
    rb"(?P<wirename>" + _NAME + rb")\s*;"
    rb"|(?P<input>input\s)"
    rb"|gate\s+(?P<gate>\w+)\s*(?:\((?P<params>[^(){}]*)\))?"
    rb"\s*(?P<args>[\w\s,]+)\{(?P<body>[^{}]*)\}"
    rb"|(?P<box>\#pragma\s+braket\s+verbatim\s+box\s*\{)"
    rb"|(?P<close>\})"
)
_INCLUDE = re.compile(rb"^include\b", re.MULTILINE)
_HEAD_BYTES = 4096
_SPACE = re.compile(rb"(?:[ \t\r\n]+|//[^\r\n]*)*")


def scan(text: Text | str, advance: Advance | None = None, name: str = "circuit") -> Circuit | None:
    """Return the circuit of straight-line OpenQASM 2 or 3 text, or None.

    Args:
        text: The text, UTF-8; a mapped file is given back to the system as it is read.
        advance: Called with the number of bytes taken since the last call.
        name: The circuit's name.

    Returns:
        The circuit; None when the text holds anything that is not straight-line, or any error.
    """
    if isinstance(text, str):
        text = text.encode()
    return _Scanner(text, name).scan(advance)


def scan_file(path: str | Path, advance: Advance | None = None, name: str = "") -> Circuit | None:
    """Return the circuit of a file of straight-line OpenQASM, or None.

    The file is mapped, not read; parts that were scanned leave memory again.

    Args:
        path: The file.
        advance: Called with the number of bytes taken since the last call.
        name: The circuit's name; the file's by default.

    Raises:
        OSError: If the file cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return scan(text, advance, name or path.stem)


class _Scanner:
    """One scan: what was declared so far, and the arrays that grow."""

    def __init__(self, text: Text, name: str) -> None:
        self.text = text
        self.size = len(text)
        self.name = name
        self.symbols = Symbols()
        self.qregs: list[RegisterDecl] = []
        self.cregs: list[RegisterDecl] = []
        self.params: list[str] = []
        self.num_clbits = 0
        self.phase = Angle()
        self.included = False
        self.comment: LayoutComment | None = None
        self.boxed = False
        self.state = np.zeros(State.SIZE, dtype=np.int64)
        self.given = np.zeros(2 * _MAX_GIVEN)
        room = min(self.size // _BYTES_PER_GATE, 1 << 16) + 64
        self.out = Output(
            code=np.empty(room, np.uint8),
            qubit=np.empty((room, 3), np.int32),
            angle=np.empty(room, np.int32),
            extra=np.empty(64, np.int32),
            frac=np.empty(room, np.int64),
            rem=np.empty(room, np.float64),
            form=np.empty(room, np.int32),
            indptr=np.zeros(64, np.int64),
            col=np.empty(64, np.int32),
            coef=np.empty(64, np.float64),
            operand=np.empty(64, np.int64),
            phase=np.zeros(1),
        )

    def scan(self, advance: Advance | None) -> Circuit | None:
        """Return the circuit, or None when something is not for this scanner."""
        state = self.state
        state[State.AT] = _SPACE.match(self.text).end()  # type: ignore[union-attr]  # matches always
        header = _VERSION.match(self.text, int(state[State.AT]))
        if header is None or (header[1] == b"2" and header[2] == b"1"):
            return None
        state[State.VERSION] = int(header[1])
        state[State.AT] = header.end()
        self.symbols.add_builtins(int(header[1]))
        self.comment = layout_comment(self.text)
        if self.comment is not None and self.comment.dollars:
            self._add_physical(self.comment.num_physical)
        if not self._scan_body(advance) or self.boxed:
            return None
        circuit = self._finish()
        return circuit if self.comment is None else placed(circuit, self.comment)

    def _add_physical(self, size: int) -> None:
        """Declare ``$0`` and so on; a text without an include calls Amazon Braket's gates."""
        self.state[State.QUBITS] = size
        self.symbols.add_qubits(size)
        for qubit in range(size):
            self.symbols.add(b"$%d" % qubit, Kinds.QUBITS, qubit)
        if _INCLUDE.search(self.text, 0, _HEAD_BYTES) is None:
            self.symbols.add_braket()

    def _scan_body(self, advance: Advance | None) -> bool:
        """Scan all statements behind the header; False when one is not for this scanner."""
        state = self.state
        reported = released = 0
        limit = _CHUNK >> 3
        compiled = False
        run = scan_statements.python
        buf: Text | NDArray[np.uint8] = self.text
        while True:
            # Short text may name long registers: what counts is the arrays that it fills.
            least = LOADED_THRESHOLD if scan_statements.loaded else KERNEL_THRESHOLD
            if not compiled and (
                self.size >= least * _PLAIN_BYTES
                or max(len(self.out.code), len(self.out.extra)) > KERNEL_THRESHOLD * _PLAIN_ROOM
            ):
                compiled = True
                run, buf = scan_statements.compiled(), np.frombuffer(self.text, dtype=np.uint8)
            state[State.EXACT] = not compiled
            if not self._declarations():
                return False
            status = run(
                buf,  # type: ignore[arg-type]  # uncompiled, bytes index to the same integers
                self.size,
                self.symbols.table,
                state,
                self.given,
                self.out,
                limit,
            )
            at = int(state[State.AT])
            if status == Status.DONE:
                break
            if status == Status.OTHER:
                if _DECLARATIONS.match(self.text, at) is None:
                    return False
            elif status == Status.NUMBER:
                if not self._give_number():
                    return False
            elif status == Status.PHASE:
                self._add_phase()
            else:
                if max(state[State.GATES], state[State.EXTRA]) > self.size + MAX_EXPANDED_GATES:
                    return False
                self._grow(status == Status.GROW)
                limit = int(state[State.GATES]) + _CHUNK
                if advance is not None:
                    advance(at - reported)
                    reported = at
                released = self._release(released, at)
        if advance is not None:
            advance(self.size - reported)
        return True

    def _release(self, since: int, until: int) -> int:
        """Give the pages of a mapped file that were read back to the system."""
        until -= until % mmap.PAGESIZE
        if isinstance(self.text, mmap.mmap) and until > since and hasattr(mmap, "MADV_DONTNEED"):
            self.text.madvise(mmap.MADV_DONTNEED, since, until - since)
        return max(since, until)

    def _give_number(self) -> bool:
        """Read a literal that the kernel asked for; False when it is not finite."""
        state = self.state
        start, stop, count = (int(state[k]) for k in (State.FROM, State.TO, State.GIVEN))
        value = float(self.text[start:stop])
        if count >= _MAX_GIVEN or not math.isfinite(value):
            return False
        self.given[2 * count : 2 * count + 2] = start, value
        state[State.GIVEN] = count + 1
        return True

    def _add_phase(self) -> None:
        """Add the phase with parameters that the kernel left in the next angle entry."""
        entry = int(self.state[State.ANGLES])
        row = int(self.out.form[entry])
        part = slice(int(self.out.indptr[row]), int(self.out.indptr[row + 1]))
        terms = zip(self.out.col[part].tolist(), self.out.coef[part].tolist(), strict=True)
        self.phase += Angle(
            int(self.out.frac[entry]),
            float(self.out.rem[entry]),
            tuple(sorted((self.params[column], coef) for column, coef in terms)),
        )

    def _grow(self, full: bool) -> None:
        """Make room for what the rest of the text will need if it goes on as it began.

        Arrays are enlarged in place, so that no second copy of them ever stands in memory.
        """
        state = self.state
        share = max(int(state[State.AT]) / self.size, 1e-3)
        gates, angles, forms, terms, extra = (
            int(state[k])
            for k in (State.GATES, State.ANGLES, State.FORMS, State.TERMS, State.EXTRA)
        )
        out = self.out
        grown = False
        for arrays, used in (
            ((out.code, out.qubit, out.angle), gates),
            ((out.frac, out.rem, out.form), angles),
            ((out.indptr,), forms),
            ((out.col, out.coef), terms),
            ((out.extra,), extra),
        ):
            room = len(arrays[0])
            # At most twice what is used: a dense beginning must not reserve the whole memory.
            wanted = min(int(used / share * 1.02), 2 * used) + 64
            if full and 2 * used > room:
                wanted = max(wanted, room + room // 4 + 64)
            if wanted > room:
                grown = True
                _resize(arrays, wanted)
        if full and not grown:
            for array in (*out[:10], out.operand):
                _resize((array,), 2 * len(array))

    def _declarations(self) -> bool:
        """Take the declarations at the scan's place; False when one of them is wrong."""
        while True:
            at = _SPACE.match(self.text, int(self.state[State.AT])).end()  # type: ignore[union-attr]
            self.state[State.AT] = at
            found = _DECLARATIONS.match(self.text, at)
            if found is None:
                return True
            if found.lastgroup == "input":
                if not self._inputs(at):
                    return False
                continue
            if not self._declare(found):
                return False
            self.state[State.AT] = found.end()

    def _inputs(self, at: int) -> bool:
        """Take the parameters that are declared from ``at`` on; False when one is wrong."""
        found = _INPUTS.match(self.text, at)
        if found is None or self.state[State.VERSION] == 2:
            return False
        names = [name for name in _COMMENT_OR_INPUT.findall(self.text, at, found.end()) if name]
        first = len(self.params)
        self.params += b" ".join(names).decode("utf-8", "replace").split(" ")
        self.state[State.AT] = found.end()
        return self.symbols.declare_all(names, Kinds.PARAMETER, first)

    def _declare(self, found: re.Match[bytes]) -> bool:
        version = int(self.state[State.VERSION])
        part = found.groupdict()
        if part["box"] is not None or part["close"] is not None:
            opens = part["box"] is not None
            wrong = self.boxed == opens or self.comment is None
            self.boxed = opens
            return not wrong
        if part["include"] is not None:
            wanted = (b"qelib1.inc", b"hqslib1.inc") if version == 2 else (b"stdgates.inc",)
            if part["include"] not in wanted or self.included:
                return False
            self.included = True
            if part["include"] == b"hqslib1.inc" and not self.symbols.add_quantinuum():
                return False
            return self.symbols.add_library(version)
        if part["gate"] is not None:
            return version == 3 and self._known_definition(part)
        if version == 2 and part["reg"] is None:
            return False
        if self.comment is not None and self.comment.dollars and b"q" in (part["reg"] or b"q"):
            if part["reg"] is not None or part["wire"] == b"qubit":
                return False  # physical and declared qubits in one text
        if part["reg"] is not None:
            quantum, name, text = part["reg"] == b"q", part["regname"], part["regsize"]
            if version == 2 and not b"a" <= name[:1] <= b"z":
                return False
        else:
            quantum, name, text = part["wire"] == b"qubit", part["wirename"], part["size"]
        return self._add_register(quantum, name, text)

    def _add_register(self, quantum: bool, name: bytes, text: bytes | None) -> bool:
        """Declare a register, or a single wire when there is no size."""
        size = 1 if text is None else int(text)
        start = int(self.state[State.QUBITS]) if quantum else self.num_clbits
        if not 0 < size <= (MAX_QUBITS if quantum else MAX_BITS) - start:
            return False
        declared = RegisterDecl(name.decode("utf-8", "replace"), size, start)
        if quantum:
            self.state[State.QUBITS] += size
            self.symbols.add_qubits(start + size)
            self.qregs.append(declared)
        else:
            self.num_clbits += size
            self.cregs.append(declared)
        kind = Kinds.QUBITS if quantum else Kinds.BITS
        return self.symbols.declare(name, kind, start, -1 if text is None else size)

    def _known_definition(self, part: dict[str, bytes]) -> bool:
        """Whether a gate definition says what the gate table says; then the gate may be called."""
        name = part["gate"].decode()
        known = BY_NAME.get(name)
        if known is None or known.name != name or not known.definition_text:
            return False
        params = [text.strip() for text in (part["params"] or b"").split(b",") if text.strip()]
        args = [text.strip() for text in part["args"].split(b",")]
        if len(params) != known.num_angles or len(args) != known.num_qubits:
            return False
        inner = _Scanner(part["body"], name)
        inner.symbols.add_builtins(3)
        if self.included:
            inner.symbols.add_library(3)
        for called in self.symbols.gate_names():
            if called.encode() not in inner.symbols:
                inner.symbols.add_gate(called)
        inner.state[State.VERSION] = 3
        for text in params:
            inner.params.append(text.decode("utf-8", "replace"))
            if not inner.symbols.declare(text, Kinds.PARAMETER, len(inner.params) - 1):
                return False
        if not all(inner._add_register(True, text, None) for text in args):
            return False
        if not inner._scan_body(None):
            return False
        told = inner._finish()
        if (told.num_qubits, told.num_clbits, len(told.params)) != (len(args), 0, len(params)):
            return False
        meant = Circuit(known.num_qubits, params=inner.params)
        names = dict(zip("tplg", inner.params, strict=False))
        for step in definition(name):
            angles = [
                Angle(a.frac, a.rem, tuple(sorted((names[p], c) for p, c in a.terms)))
                for a in step.angles
            ]
            meant.append(step.gate.name, step.qubits, angles)
        same = meant.run.same_as(told.run, meant.forms, told.forms)
        return same and meant.global_phase == told.global_phase and self.symbols.add_gate(name)

    def _finish(self) -> Circuit:
        """Return the circuit of what was scanned; the arrays are cut to size in place."""
        state, out = self.state, self.out
        gates, angles, forms, terms, extra = (
            int(state[k])
            for k in (State.GATES, State.ANGLES, State.FORMS, State.TERMS, State.EXTRA)
        )
        _resize((out.code, out.qubit, out.angle), gates)
        _resize((out.frac, out.rem, out.form), angles)
        _resize((out.indptr,), forms + 1)
        _resize((out.col, out.coef), terms)
        _resize((out.extra,), extra)
        if self.comment is not None and self.comment.dollars and not self.qregs:
            taken = {*self.params, *(r.name for r in self.cregs)}
            size = int(state[State.QUBITS])
            self.qregs = [RegisterDecl(free_register(taken), size, 0)] if size else []
        circuit = Circuit(
            int(state[State.QUBITS]),
            self.num_clbits,
            self.params,
            self.name,
            qregs=self.qregs,
            cregs=self.cregs,
        )
        circuit.forms = Forms(out.indptr, out.col, out.coef)
        circuit.global_phase = self.phase + Angle(int(state[State.UNITS]), float(out.phase[0]))
        if gates:
            circuit.append_item(
                Run(out.code, out.qubit, out.angle, out.frac, out.rem, out.form, out.extra)
            )
        return circuit


def _resize(arrays: tuple[NDArray[Any], ...], length: int) -> None:
    """Change the length of arrays in place; nothing else may hold their memory."""
    for array in arrays:
        array.resize((length, *array.shape[1:]), refcheck=False)
