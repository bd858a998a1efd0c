"""What a search tries on a region: the registered reductions with options drawn at random."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from qcomp.errors import TargetError
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES
from qcomp.passmanager import CircuitPass, Context
from qcomp.pipeline_text import make_pass

__all__ = ["Move", "clean", "draw_move", "wide_gates", "written"]

_CLEAN_ROUNDS = 3
"""Most rounds of the sweep after a move."""

Move = tuple[CircuitPass, ...]
"""Passes to run one after the other."""


@functools.lru_cache(maxsize=4096)
def _made(name: str, options: tuple[tuple[str, object], ...] = ()) -> CircuitPass:
    made = make_pass(name, dict(options))
    assert isinstance(made, CircuitPass)
    return made


def _one_of(rng: np.random.Generator, *values: float) -> float:
    return values[int(rng.integers(len(values)))]


def _sweep(rng: np.random.Generator, basis: str) -> Move:
    return ()


def _phases(rng: np.random.Generator, basis: str) -> Move:
    options = (("tries", int(rng.integers(1, 9))), ("window", int(_one_of(rng, 24, 64, 4096))))
    return (_made("resynthesize-phase-polynomials", options),)


def _blocks(rng: np.random.Generator, basis: str) -> Move:
    options = (
        ("basis", basis),
        ("two_qubit", _one_of(rng, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)),
        ("rotation", _one_of(rng, 0.25, 1.0, 3.0)),
    )
    return (_made("consolidate-two-qubit", options),)


def _cliffords(rng: np.random.Generator, basis: str) -> Move:
    return (_made("resynthesize-cliffords", (("slack", int(rng.integers(0, 4))),)),)


def _paulis(rng: np.random.Generator, basis: str) -> Move:
    options = (
        ("basis", basis),
        ("two_qubit", _one_of(rng, 1.0, 2.0, 4.0, 8.0, 16.0)),
        ("tries", int(rng.integers(1, 5))),
        ("window", int(_one_of(rng, 24, 96, 4096))),
    )
    return (_made("resynthesize-pauli-rotations", options),)


def _networks(rng: np.random.Generator, basis: str) -> Move:
    options = (
        ("tries", int(_one_of(rng, 2, 4, 8, 16))),
        ("slack", int(rng.integers(0, 4))),
        ("window", int(_one_of(rng, 24, 96, 4096))),
    )
    return (_made("resynthesize-pauli-networks", options),)


def _windows(rng: np.random.Generator, basis: str) -> Move:
    return (_made("resynthesize-windows", (("searches", int(_one_of(rng, 20, 60))),)),)


_MOVES: tuple[tuple[float, Callable[[np.random.Generator, str], Move]], ...] = (
    (2.0, _sweep),
    (3.0, _phases),
    (3.0, _blocks),
    (2.0, _cliffords),
    (2.0, _paulis),
    (3.0, _networks),
    (2.0, _windows),
)
"""(how often, what): one part of a move."""

_WEIGHTS = np.array([weight for weight, _ in _MOVES])


def draw_move(rng: np.random.Generator, basis: str) -> Move:
    """Return one or two reductions with random options.

    Args:
        rng: Draws them.
        basis: One-qubit gates as ``fuse-one-qubit`` takes them, ``own`` among them.
    """
    chance = _WEIGHTS / _WEIGHTS.sum()
    parts = rng.choice(len(_MOVES), size=int(rng.integers(1, 3)), p=chance)
    return tuple(made for part in parts for made in _MOVES[int(part)][1](rng, basis))


def wide_gates(circuit: Circuit, basis: str) -> tuple[str, ...]:
    """Return the gates on two and more qubits that a search in a basis may write.

    They are those of the circuit, and ``cx`` where it has none that makes it. A basis that cannot
    write every one-qubit gate is none to translate into: then there are none.

    Args:
        circuit: The circuit.
        basis: Its one-qubit gates, ``own`` for any.
    """
    if basis == "own":
        return ()
    used = sorted({code for run in circuit.runs() for code in np.unique(run.code).tolist()})
    rows = [GATES[code] for code in used]
    wide = tuple(row.name for row in rows if row.is_unitary and row.num_qubits > 1)
    probe = Circuit(2).h(0).t(0).cx(0, 1)
    for more in ((), ("cx",)):
        gates = (*basis.split("-"), *wide, *more)
        try:
            _made("to-basis", (("gates", gates),)).run(probe, Context())
        except TargetError:
            continue
        return (*wide, *more)
    return ()


def clean(
    circuit: Circuit, move: Move, basis: str, wide: tuple[str, ...], context: Context
) -> Circuit:
    """Return a circuit after a move and the linear reductions that follow every move.

    Args:
        circuit: A region.
        move: What is tried on it.
        basis: One-qubit gates to write, ``own`` for any.
        wide: What :func:`wide_gates` says.
        context: Takes the rounding.
    """
    for made in move:
        circuit = made.run(circuit, context)
    circuit = written(circuit, basis, wide, context)
    sweep = (
        _made("merge-rotations"),
        _made("merge-pauli-rotations"),
        _made("cancel-inverses"),
        _made("fuse-one-qubit", (("basis", basis),)),
    )
    for _ in range(_CLEAN_ROUNDS):
        before = circuit
        for made in sweep:
            circuit = made.run(circuit, context)
        if circuit is before:
            break
    return circuit


def written(circuit: Circuit, basis: str, wide: tuple[str, ...], context: Context) -> Circuit:
    """Return a circuit in the gates that may be written.

    Sweeps join gates to others, such as sx and x to sxdg, and an inverse has the gates' inverses.

    Args:
        circuit: A region.
        basis: One-qubit gates to write, ``own`` for any.
        wide: What :func:`wide_gates` says.
        context: Takes the rounding.
    """
    if not wide:
        return circuit
    translate = _made("to-basis", (("gates", (*basis.split("-"), *wide)),))
    before, circuit = circuit, translate.run(circuit, context)
    if circuit is before:
        return circuit
    for name, options in (("merge-rotations", ()), ("fuse-one-qubit", (("basis", basis),))):
        circuit = _made(name, options).run(circuit, context)
    return translate.run(circuit, context)
