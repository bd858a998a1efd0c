"""How a reduction is applied to the leaves of a circuit: forms and phases put where they belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI, Angle, wrap_int
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.kernels import KERNEL_THRESHOLD, LOADED_THRESHOLD, Kernel

__all__ = ["Leaf", "Phase", "call", "rewrite_leaves"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase over parameter numbers: units of pi / 2**60, radians, (column, factor) pairs."""

    frac: int = 0
    rem: float = 0.0
    row: tuple[tuple[int, float], ...] = ()

    @staticmethod
    def halved(
        frac: int,
        rem: float,
        forms: Forms,
        form: NDArray[np.int32] | None = None,
        scale: NDArray[np.float64] | None = None,
    ) -> Phase:
        """Return half of ``frac + rem + sum of scale[k] * row(form[k])``.

        Args:
            frac: Units of pi / 2**60, modulo 4 pi.
            rem: Radians.
            forms: The circuit's forms.
            form: int32[n] rows, -1 for none.
            scale: float64[n].
        """
        row: tuple[tuple[int, float], ...] = ()
        if form is not None and scale is not None and (form >= 0).any():
            some, index = forms.combine(form, scale, np.zeros(len(form), dtype=np.int64), 1)
            row = tuple((column, factor / 2) for column, factor in some.row(int(index[0])))
        frac &= 4 * PI - 1
        odd = frac & 1
        rest = rem / 2 + (odd * np.pi / (1 << 61) if odd else 0.0)
        return Phase((frac - odd) // 2, rest, row)

    @property
    def is_zero(self) -> bool:
        """Whether there is no phase (modulo 2 pi)."""
        return self.frac % (1 << 61) == 0 and self.rem == 0.0 and not self.row

    def angle(self, params: tuple[str, ...]) -> Angle:
        """Return the phase over parameter names."""
        terms = tuple(sorted((params[column], factor) for column, factor in self.row))
        return Angle(wrap_int(self.frac), self.rem, terms)


Leaf = tuple[Run, Forms, Phase]
"""A rewritten run, the circuit's forms with the rows it needed, the phase that came out."""


def rewrite_leaves(circuit: Circuit, rewrite: Callable[[Run, Forms], Leaf]) -> Circuit:
    """Apply ``rewrite`` to every run of the circuit, control-flow bodies included.

    The phase of a straight-line circuit goes to its global phase; in a circuit with control flow it
    stays in the run that it came from, as one ``gphase`` at its end.

    Args:
        circuit: The circuit.
        rewrite: Takes a run and the forms; gives back the same run where nothing changed.

    Returns:
        The new circuit; the same object when no run changed.
    """
    top = circuit.is_straight_line
    forms = circuit.forms
    total = circuit.global_phase

    def one(run: Run) -> Run:
        nonlocal forms, total
        new, forms, phase = rewrite(run, forms)
        if new is run:
            return run
        new, angle = _without_phases(new, forms, circuit.params)
        angle += phase.angle(circuit.params)
        if top:
            total += angle
            return new
        if angle.frac % (1 << 61) == 0 and angle.rem == 0.0 and not angle.terms:
            return new
        column = {name: i for i, name in enumerate(circuit.params)}
        forms, form = forms.append([[(column[name], factor) for name, factor in angle.terms]])
        last = Run.of([G.GPHASE], [(-1, -1, -1)], [wrap_int(angle.frac)], [angle.rem], form)
        return Run.concat([new, last])

    mapped = circuit.map_runs(one)
    if mapped is circuit:
        return circuit
    result = mapped.copy(forms=forms)
    result.global_phase = total
    return result


def _without_phases(run: Run, forms: Forms, params: tuple[str, ...]) -> tuple[Run, Angle]:
    """Take the ``gphase`` operations out of a run; their sum is returned."""
    mask = run.code == G.GPHASE
    if not mask.any():
        return run, Angle()
    entry = run.angle[mask]
    some, index = forms.combine(
        run.form[entry], np.ones(len(entry)), np.zeros(len(entry), dtype=np.int64), 1
    )
    phase = Phase(int(run.frac[entry].sum()), float(run.rem[entry].sum()), some.row(int(index[0])))
    return run.select(~mask), phase.angle(params)


def call(
    kernel: Kernel[..., int], size: int, inputs: tuple[object, ...], outputs: tuple[object, ...]
) -> int:
    """Run a kernel that fills its last arguments, on lists where it runs uncompiled.

    Plain Python reads lists several times faster than numpy arrays, and its integers do not
    overflow; the outputs are copied back.

    Args:
        kernel: Takes the inputs, then the outputs.
        size: Operations at hand: from ``KERNEL_THRESHOLD`` on the compiled form runs, from
            ``LOADED_THRESHOLD`` on where it is loaded or was asked often enough.
        inputs: One-dimensional arrays and numbers.
        outputs: One-dimensional arrays to fill.

    Returns:
        What the kernel returns.
    """
    if size >= KERNEL_THRESHOLD or (size >= LOADED_THRESHOLD and kernel.is_hot(size)):
        return kernel.compiled()(*inputs, *outputs)
    lists = [a.tolist() if isinstance(a, np.ndarray) else a for a in (*inputs, *outputs)]
    value = kernel.python(*lists)
    for array, filled in zip(outputs, lists[len(inputs) :], strict=True):
        assert isinstance(array, np.ndarray)
        array[:] = filled
    return value
