"""insert-dynamical-decoupling: pulses that undo each other in idle times, so that drifts do too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from qcomp.device import Device, get_device
from qcomp.errors import PassError
from qcomp.ir.angle import Angle, pi_fraction
from qcomp.ir.blocks import Delay, Duration, Item
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, IS_UNITARY, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.mitigation.schedule import durations_of, schedule
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["InsertDynamicalDecoupling"]

Word = tuple[tuple[str, tuple[Angle, ...]], ...]

_PI = pi_fraction(1)
_NOTHING: tuple[Angle, ...] = ()
_LETTERS = {"XX": "XX", "CPMG": "YY", "XY4": "XYXY", "none": ""}
_NANOSECOND = 1e-9


@dataclass(frozen=True)
class InsertDynamicalDecoupling(CircuitPass):
    """Fill idle times with delays and pulses: ``idle(t) = delay X delay X delay``.

    With n pulses the delays are ``t/2n, t/n, ..., t/n, t/2n``, so whatever turns a waiting qubit
    about Z at a constant rate cancels. ``XX`` are two X pulses, ``CPMG`` two Y pulses, ``XY4`` is
    X Y X Y, which also cancels a turn about X or Y; ``none`` makes idle times explicit and no more.

    Preconditions: the duration of every operation is known, from this pass's device, the target's,
    or the options. A pulse starts on the device's alignment grid. Explicit delays, the time before
    a qubit's first gate, and times after a measurement or reset are left alone; so are times of
    which pulses would be more than half. Control flow ends a schedule and a new one begins.

    Preserved: the unitary exactly, global phase included (``XY4`` is -1).

    Cost: linear.

    Source: Viola, Knill, Lloyd 1999 (arXiv:quant-ph/9809071); Meiboom and Gill 1958 for CPMG;
    Maudsley 1986 for XY4; Ezzell et al. 2022 (arXiv:2207.03670) for a comparison on machines.

    Attributes:
        sequence: XX, CPMG, XY4 or none.
        repeats: How often the sequence stands in each idle time.
        schedule: alap (as late as possible: qubits stay in |0> longest) or asap.
        device: Name of the device; the target's own where empty.
        one_qubit_ns: Nanoseconds of one-qubit gates that the device does not say; 0 for unknown.
        two_qubit_ns: The same of two-qubit gates.
        measure_ns: The same of measurements and resets.
    """

    name: ClassVar[str] = "insert-dynamical-decoupling"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    sequence: Literal["XX", "XY4", "CPMG", "none"] = "XX"
    repeats: int = 1
    schedule: Literal["alap", "asap"] = "alap"
    device: str = ""
    one_qubit_ns: float = 0.0
    two_qubit_ns: float = 0.0
    measure_ns: float = 0.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: If a number is out of range.
        """
        if not 1 <= self.repeats <= 1000:
            raise ValueError(f"repeats is between 1 and 1000, not {self.repeats}")
        times = (self.one_qubit_ns, self.two_qubit_ns, self.measure_ns)
        if not all(np.isfinite(t) and t >= 0 for t in times):
            raise ValueError("durations must be finite and not negative")

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with its idle times filled; the same object when none is long enough.

        Raises:
            PassError: If a duration is unknown, or the machine has no pulse that is known.
        """
        return _Decoupling(self, circuit, context).run()


class _Decoupling:
    """One run of the pass over one circuit; times are in ticks, the machine's own where it has."""

    def __init__(
        self, options: InsertDynamicalDecoupling, circuit: Circuit, context: Context
    ) -> None:
        self.options = options
        self.circuit = circuit
        target = context.target
        device = get_device(options.device) if options.device else target and target.hardware
        self.bare = device is None
        self.machine = device or Device.line(circuit.num_qubits)
        self.virtual = () if target is None else target.native.virtual
        self.gates = self.machine.gates or (() if target is None else target.basis)
        self.unit: Literal["ns", "dt"] = "ns" if self.machine.dt is None else "dt"
        self.tick = self.machine.dt or _NANOSECOND
        self.align = self.machine.timing.get("pulse_alignment", 1)
        self.pulses = self._pulses() * options.repeats
        self.lengths: dict[int, int] = {}
        self.count = 0

    def run(self) -> Circuit:
        new = self.circuit.copy(body=())
        changed = False
        stretch: list[Item] = []
        for item in (*self.circuit.body, None):
            if isinstance(item, Run | Delay):
                stretch.append(item)
                continue
            changed |= self._fill(stretch, new)
            stretch = []
            if item is not None:
                new.append_item(item)
        if self.options.sequence == "XY4" and self.count * self.options.repeats % 2:
            new.add_phase(int(_PI.frac))
        return new if changed else self.circuit

    def _fill(self, stretch: list[Item], new: Circuit) -> bool:
        """Append a stretch with its idle times filled; return whether any was."""
        ticks = np.rint(self._durations(stretch) / self.tick)
        late = self.options.schedule == "alap"
        line = schedule(stretch, ticks, self.circuit.num_qubits, late)
        gaps = line.gaps()
        codes = np.concatenate(
            [np.zeros(0, np.uint8)]
            + [i.code if isinstance(i, Run) else np.array([G.ID], np.uint8) for i in stretch]
        )
        quiet = np.isin(codes[gaps.before], (G.MEASURE, G.RESET))
        inserts: dict[int, list[tuple[int, list[int]]]] = {}
        for k in np.flatnonzero(~quiet).tolist():
            wire = int(gaps.wire[k])
            delays = self._delays(wire, int(gaps.begin[k]), int(gaps.end[k]))
            if delays:
                inserts.setdefault(int(gaps.after[k]), []).append((wire, delays))
        fillings = len(inserts)
        places = np.array(sorted(inserts), dtype=np.int64)
        done = 0
        for item in stretch:
            size = len(item) if isinstance(item, Run) else 1
            cuts = places[np.searchsorted(places, done) : np.searchsorted(places, done + size)]
            start = done
            for at in (*cuts.tolist(), done + size):
                if isinstance(item, Run) and at > start:
                    whole = start == done and at == done + size
                    part = np.arange(start - done, at - done)
                    new.append_item(item if whole else item.select(part))
                self._append(new, inserts.pop(at, []) if at < done + size else [])
                start = at
            if not isinstance(item, Run):
                new.append_item(item)
            done += size
        self._append(new, inserts.pop(done, []))
        return bool(fillings)

    def _append(self, new: Circuit, fillings: Sequence[tuple[int, list[int]]]) -> None:
        self.count += len(fillings)
        for wire, delays in fillings:
            words: list[Word] = [*self.pulses, ()]
            for delay, word in zip(delays, words, strict=True):
                if delay:
                    new.delay(Duration(float(delay), self.unit), wire)
                for name, angles in word:
                    new.append(name, (wire,), angles)

    def _delays(self, wire: int, begin: int, end: int) -> list[int]:
        """Return the n + 1 delays of an idle time, empty where it is too short for n pulses."""
        n = len(self.pulses)
        if not n:
            return [end - begin]
        length = self._pulse_ticks(wire)
        free = end - begin - n * length
        if free < n * max(length, self.align):
            return []
        ideal = begin + free * (np.arange(n) + 0.5) / n + length * np.arange(n)
        starts = (np.rint(ideal / self.align) * self.align).astype(np.int64)
        ends = np.concatenate([[begin], starts + length])
        delays = np.concatenate([starts, [end]]) - ends
        return [] if (delays < 0).any() else [int(d) for d in delays]

    # --- durations -------------------------------------------------------------------------

    def _durations(self, stretch: Sequence[Item]) -> NDArray[np.float64]:
        """Return the seconds of each operation.

        Raises:
            PassError: If one is unknown.
        """
        found = durations_of(stretch, self.machine, self.virtual)
        codes = [i.code if isinstance(i, Run) else np.full(1, G.BARRIER, np.uint8) for i in stretch]
        code = np.concatenate([np.zeros(0, np.uint8), *codes])
        for given, kind in (
            (self.options.one_qubit_ns, IS_UNITARY[code] & (NUM_QUBITS[code] == 1)),
            (self.options.two_qubit_ns, IS_UNITARY[code] & (NUM_QUBITS[code] == 2)),
            (self.options.measure_ns, np.isin(code, (G.MEASURE, G.RESET))),
        ):
            if given:
                found = np.where(np.isnan(found) & kind, given * _NANOSECOND, found)
        lost = np.isnan(found)
        if lost.any():
            names = list(dict.fromkeys(GATES[c].name for c in code[lost].tolist()))
            words = ", ".join("delay in dt" if name == "barrier" else name for name in names)
            where = "there is no device" if self.bare else f"'{self.machine.name}' does not say it"
            raise PassError(
                f"the duration of {words} is unknown",
                why=where,
                hint="compile for a device with durations first (-t ibm-heron --device "
                "fake_torino), or give one_qubit_ns, two_qubit_ns and measure_ns",
            )
        return found

    def _pulse_ticks(self, wire: int) -> int:
        """Return the ticks of the slowest pulse on a wire."""
        if wire in self.lengths:
            return self.lengths[wire]
        most = 0
        for word in dict.fromkeys(self.pulses):
            probe = Circuit(wire + 1)
            for name, angles in word:
                probe.append(name, (wire,), angles)
            most = max(most, int(np.rint(self._durations([probe.run]) / self.tick).sum()))
        self.lengths[wire] = most
        return most

    def _pulses(self) -> tuple[Word, ...]:
        """Return the sequence in the machine's gates.

        Raises:
            PassError: If it has no gate that a pulse could be.
        """
        letters = _LETTERS[self.options.sequence]
        names = self.gates
        turn: Word = (("rz", (_PI,)),)
        if not names or "x" in names:
            x: tuple[Word, Word] = ((("x", _NOTHING),),) * 2
            # rz(pi) then x is -Y, and two of them stand in each sequence.
            own = not names or "y" in names
            y: tuple[Word, Word] = ((("y", _NOTHING),),) * 2 if own else ((*turn, *x[0]),) * 2
        elif "r" in names:
            x = (("r", (_PI, Angle())),), (("r", (-_PI, Angle())),)
            half = pi_fraction(1, 2)
            y = (("r", (_PI, half)),), (("r", (-_PI, half)),)
        elif "rx" in names:
            x = (("rx", (_PI,)),), (("rx", (-_PI,)),)
            y = (*turn, *x[0]), (*turn, *x[1])
        elif letters:
            raise PassError(
                f"'{self.machine.name}' has no pulse for dynamical decoupling",
                why=f"its gates are {', '.join(names)}",
                hint="it needs x, r or rx",
            )
        else:
            return ()
        words: list[Word] = []
        for k, letter in enumerate(letters):
            # The second of a letter undoes the first, phase included.
            words.append((x if letter == "X" else y)[letters[:k].count(letter)])
        return tuple(words)
