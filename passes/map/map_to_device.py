"""map-to-device: qubits get places on a machine, and swaps where they have to meet."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.device import Device, get_device
from qcomp.errors import TargetError, UsageError
from qcomp.ir.angle import Angle
from qcomp.ir.blocks import walk_items
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import IS_UNITARY, NUM_QUBITS
from qcomp.ir.layout import Layout, relabel
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.passes.map.control_flow import Walker
from qcomp.passes.map.perfect import perfect_start, quieter, success
from qcomp.passes.map.placing import placed
from qcomp.passes.map.route_kernels import NEVER
from qcomp.passes.map.routing import Budget, Region, Routed, route_skeleton
from qcomp.passes.map.skeleton import Skeleton, skeleton_of
from qcomp.passes.map.to_basis import ToBasis
from qcomp.passmanager import CircuitPass, Context, Guarantee, Pipeline
from qcomp.pipelines import for_basis

__all__ = ["MapToDevice"]

Int32 = NDArray[np.int32]

_BUDGETS = {
    "fast": Budget(items=8_000, trials=6, rounds=2, refinements=20),
    "default": Budget(),
    "max": Budget(items=2_000_000, trials=200, rounds=4, refinements=4000),
}


_HOPELESS = 1.1
"""A second form of the circuit that costs so many times the first is not searched further."""

_DONE_LATER = re.compile(r",(fuse-one-qubit|consolidate-two-qubit)\{[^}]*\}")
_ANY_GATES = re.compile(r"(,to-basis\{[^}]*\})+$")


@dataclass(frozen=True)
class MapToDevice(CircuitPass):
    """``U = P_final^-1 M P_initial`` on the circuit's qubits, every gate of M on a coupled pair.

    Gates are gathered into blocks on two qubits, and the places of the qubits and the swaps between
    blocks are searched so that blocks and swaps together take the fewest CX gates: a swap beside a
    block on its pair costs what the two take as one, a swap with an ancilla, which is in |0>, two
    CX gates, a CX gate across a qubit may be a bridge of four, and swaps of the circuit itself
    become renamings. Blocks that commute on a wire (layers of QAOA, Trotter steps and the like) are
    done in the order that suits the placement. A placement without any swap is looked for with
    VF2, and where the machine's error rates are known, the mapped circuit moves to the qubits that
    are best for it, with VF2 again; of circuits that cost the same the likelier success counts.

    What is mapped already is kept: a circuit as wide as the device whose gates are all on coupled
    pairs. Control flow is kept: each branch and loop body ends with the qubits where they were.

    Preconditions: a connected device with at least as many qubits as the circuit. Gates on more
    than two qubits are taken apart first. Pairs are used in both directions: ``orient-gates``
    turns gates around afterwards; ``consolidate-two-qubit`` makes one block of a block and a swap.

    Preserves: the unitary, from |0> on the ancillas; the circuit's ``layout`` says where its qubits
    begin and end. Bits and measurements stay as they are.

    Cost: linear in the gates times the passes that the effort allows.

    Source: the swap search follows SABRE (Li, Ding, Xie 2019, arXiv:1809.02573; Zou, Treinish,
    Hartman, Ivrii, Lishman 2024, arXiv:2409.08368) with costs of blocks and swaps together (Liu,
    Bowman, Gokhale et al. 2022, arXiv:2205.10596; McKinney, Hatridge, Jones 2024,
    arXiv:2308.03874). VF2 is Qiskit's.

    Attributes:
        device: Name of the device; the target's own where empty.
        layout: Physical qubit of each of the circuit's qubits at the start; the target's own where
            empty, else searched.
        effort: ``fast``, ``default`` or ``max``: how much is searched.
        basis: One-qubit gates as ``fuse-one-qubit`` takes them: the circuit reduced over them and
            ``cx`` with this effort is mapped too, and the better one counts, since fewer gates may
            need more swaps. Where empty, only the circuit as it is.
        seeds: Searches of their own, side by side in threads; the best result counts, the first
            of those that cost the same.

    Raises:
        TargetError: If the circuit is wider than the device or its largest connected part.
    """

    name: ClassVar[str] = "map-to-device"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    device: str = ""
    layout: tuple[int, ...] = ()
    effort: str = "default"
    basis: str = ""
    seeds: int = 1

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the mapped circuit; the same object when it is mapped already.

        Raises:
            UsageError: If there is no device, or the layout does not fit.
            TargetError: If the device cannot hold the circuit.
        """
        device = self._device(context)
        places = self._places(circuit, context, device)
        if places is None and is_mapped(circuit, device):
            return circuit
        if places is None and device.is_all_to_all and len(device.present) == device.num_qubits:
            _check_width(circuit, device, Region.of(device))
            return circuit
        _check_width(circuit, device, Region.of(device))
        if places is None:
            region = Region.good(device, circuit.num_qubits)
        else:
            region = Region.of(device)
        if any((NUM_QUBITS[run.code] > 2).any() or _has_mcx(run) for run in circuit.runs()):
            circuit = ToBasis(max_qubits=2).run(circuit, context)
        seeds = [context.seed * 7919 + 104_729 * k for k in range(max(self.seeds, 1))]
        if not circuit.is_straight_line:
            bound = _with_numbers(circuit)
            return self._map_tree(circuit, bound, device, region, places, seeds[0])
        tries = [self._route(circuit, device, region, places, seeds)]
        if self.basis and self.effort != "fast":
            other = _reduced(circuit, self.basis, self.effort, context)
            if other is not circuit:
                rival = int(_HOPELESS * tries[0].routed.cost)
                tries.append(self._route(other, device, region, places, seeds, rival))
        least = min(t.routed.cost for t in tries)
        best = [t for t in tries if t.routed.cost == least]
        if places is None:
            best = [replace(t, routed=quieter(t.skeleton, t.routed, device, region)) for t in best]
        chosen = best[0]
        if len(best) > 1:
            chosen = max(best, key=lambda t: success(t.skeleton, t.routed, device, region))
        return chosen.finished(device, region)

    def _device(self, context: Context) -> Device:
        if self.effort not in _BUDGETS:
            raise UsageError(
                f"there is no effort '{self.effort}'", hint="efforts: " + ", ".join(_BUDGETS)
            )
        if self.device:
            return get_device(self.device)
        device = None if context.target is None else context.target.device
        if device is None:
            raise UsageError(
                "there is no device to map circuits to",
                hint="give --device, or map-to-device{device=grid-10x10}",
            )
        return device

    def _places(self, circuit: Circuit, context: Context, device: Device) -> Int32 | None:
        given: tuple[int, ...] | None = self.layout or None
        if given is None and context.target is not None and not self.device:
            given = context.target.initial_layout
        if given is None:
            return None
        if len(given) != circuit.num_qubits:
            raise UsageError(
                f"the initial layout places {len(given)} qubits",
                why=f"the circuit '{circuit.name}' has {circuit.num_qubits}",
            )
        Layout(given, given, device.num_qubits)
        part = set(device.components()[0].tolist())
        strange = [q for q in given if q not in part]
        if strange:
            raise UsageError(
                f"the initial layout names the qubit {strange[0]}",
                why=f"it is not in the connected part of '{device.name}' that circuits are put on",
            )
        return np.array(given, dtype=np.int32)

    def _route(
        self,
        circuit: Circuit,
        device: Device,
        region: Region,
        places: Int32 | None,
        seeds: list[int],
        rival: int = NEVER,
    ) -> _Try:
        run, bound = circuit.run, _with_numbers(circuit).run
        skeleton, phase = skeleton_of(run, bound, circuit.num_qubits)
        budget = _BUDGETS[self.effort]
        starts = None if places is None else region.local(places)[None]

        def search(seed: int) -> Routed:
            return route_skeleton(
                skeleton, circuit.num_qubits, region, budget, seed, starts,
                fixed=places is not None, rival=rival,
            )  # fmt: skip

        best = min(_side_by_side(search, seeds), key=lambda routed: routed.cost)
        if places is None:
            start = perfect_start(skeleton, best, circuit.num_qubits, region)
            if start is not None:
                routed = route_skeleton(
                    skeleton, circuit.num_qubits, region, budget, seeds[0], start[None], fixed=True
                )
                best = min(best, routed, key=lambda r: r.cost)
        return _Try(circuit, skeleton, best, phase)

    def _map_tree(
        self,
        circuit: Circuit,
        bound: Circuit,
        device: Device,
        region: Region,
        places: Int32 | None,
        seed: int,
    ) -> Circuit:
        pairs = list(zip(circuit.runs(), bound.runs(), strict=True))
        if places is None:
            start = np.zeros(circuit.num_qubits, dtype=np.int32)
            if pairs:
                whole, _ = skeleton_of(
                    Run.concat([run for run, _ in pairs]),
                    Run.concat([run for _, run in pairs]),
                    circuit.num_qubits,
                    exchanging=False,
                )
                budget = _BUDGETS[self.effort]
                start = route_skeleton(whole, circuit.num_qubits, region, budget, seed).start
            else:
                start = np.arange(circuit.num_qubits, dtype=np.int32)
        else:
            start = region.local(places)
        walker = Walker(
            {id(run): other for run, other in pairs}, circuit.num_qubits, region, start, seed
        )
        body = walker.block(circuit.body)
        new = relabel(circuit.copy(body=()), range(circuit.num_qubits), device.num_qubits)
        new = new.copy(body=body, forms=circuit.forms)
        new.layout = _composed(circuit, region, start, walker.v2p, device)
        return new


def _side_by_side(search: Callable[[int], Routed], seeds: list[int]) -> list[Routed]:
    """Search with every seed, in as many threads as there are cores."""
    # The first compiles the kernels where no call before has.
    done = [search(seeds[0])]
    if len(seeds) < 3:
        return done + [search(seed) for seed in seeds[1:]]
    with ThreadPoolExecutor(min(len(seeds) - 1, os.cpu_count() or 1)) as pool:
        return done + list(pool.map(search, seeds[1:]))


@functools.lru_cache(maxsize=16)
def _reductions(basis: str, effort: str) -> Pipeline:
    """Return the pipeline of an effort over ``cx``, without what the steps after mapping do.

    Those are one-qubit gates in their fewest, and blocks: routing counts a block as what it costs.
    """
    gates = (*basis.split("-"), "cx")
    text = for_basis(gates, basis, effort)
    if effort == "default":
        text = _ANY_GATES.sub("", _DONE_LATER.sub("", text))
    return Pipeline.parse(text)


def _reduced(circuit: Circuit, basis: str, effort: str, context: Context) -> Circuit:
    """Return the circuit after the reductions of an effort."""
    pipeline = _reductions(basis, effort)
    if any(step.instance is None for step in pipeline.steps):
        program = Program.of_circuit(circuit)
        changed = any(record.changed for record in pipeline.run(program, context))
        return program.only_circuit if changed else circuit
    for step in pipeline.steps:
        if isinstance(step.instance, CircuitPass):
            circuit = step.instance.run(circuit, context)
    return circuit


def is_mapped(circuit: Circuit, device: Device) -> bool:
    """Whether the circuit's wires are the device's qubits and all its gates are on coupled pairs.

    Directions aside.
    """
    if circuit.num_qubits != device.num_qubits:
        return False
    for item in walk_items(circuit.body):
        if not isinstance(item, Run):
            continue
        if _has_mcx(item) or (NUM_QUBITS[item.code] > 2).any():
            return False
        a, b = item.qubit[(NUM_QUBITS[item.code] == 2) & IS_UNITARY[item.code], :2].T
        if not np.all(device.allows(a, b) | device.allows(b, a)):
            return False
    return True


def _has_mcx(run: Run) -> bool:
    return bool((run.is_wide & IS_UNITARY[run.code]).any())


def _check_width(circuit: Circuit, device: Device, region: Region) -> None:
    if circuit.num_qubits > device.num_qubits:
        raise TargetError(
            f"the circuit '{circuit.name}' has {circuit.num_qubits} qubits",
            why=f"the device '{device.name}' has {device.num_qubits}",
            hint="take a larger device, or a circuit with fewer qubits",
        )
    if circuit.num_qubits > len(region.qubits):
        parts = [len(part) for part in device.components()]
        raise TargetError(
            f"the coupling map of '{device.name}' is not connected",
            why=f"its largest part has {parts[0]} qubits, the circuit '{circuit.name}' needs "
            f"{circuit.num_qubits}",
            hint="give a connected coupling map, or a circuit that fits into one part",
        )


def _with_numbers(circuit: Circuit) -> Circuit:
    """Return the circuit with numbers for its parameters that are in no way special."""
    if not circuit.params:
        return circuit
    rng = np.random.default_rng(20_260_731)
    return circuit.bind(rng.uniform(0.3, 1.2, circuit.num_params).tolist())


def _composed(circuit: Circuit, region: Region, start: Int32, end: Int32, device: Device) -> Layout:
    first, last = region.qubits[start].tolist(), region.qubits[end].tolist()
    layout = Layout(tuple(first), tuple(last), device.num_qubits)
    return layout if circuit.layout is None else circuit.layout.then(layout)


@dataclass(frozen=True, slots=True)
class _Try:
    """A circuit over gates on one and two qubits and how it may be mapped."""

    circuit: Circuit
    skeleton: Skeleton
    routed: Routed
    phase: float

    def finished(self, device: Device, region: Region) -> Circuit:
        """Return the mapped circuit."""
        circuit, routed = self.circuit, self.routed
        run, end = placed(self.skeleton, routed.event, routed.start, len(region.qubits))
        run = run.relabel(region.qubits, np.arange(circuit.num_clbits, dtype=np.int32))
        new = relabel(circuit.copy(body=()), range(circuit.num_qubits), device.num_qubits)
        new = new.copy(body=(run,) if len(run) else (), forms=circuit.forms)
        new.global_phase = circuit.global_phase + Angle.of(self.phase)
        new.layout = _composed(circuit, region, routed.start, end, device)
        return new
