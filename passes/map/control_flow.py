"""Routing through control flow: every branch and loop body leaves the qubits where they were."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.blocks import Block, Box, Break, Continue, Delay, For, If, Item, Switch, While
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.map.placing import placed
from qcomp.passes.map.route_kernels import SWAP
from qcomp.passes.map.routing import Budget, Region, route_skeleton
from qcomp.passes.map.skeleton import skeleton_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Walker"]

Int32 = NDArray[np.int32]

_BUDGET = Budget(items=20_000, trials=8, rounds=1, refinements=20)


@dataclass(slots=True)
class Walker:
    """Routes the runs of a tree one after the other.

    Attributes:
        bound: The run with numbers for its parameters, by the id of each run.
        num_qubits: Virtual qubits.
        region: Where they go.
        v2p: Where they are, within the region.
        seed: Seed of the searches.
        path: The swaps so far, (physical, physical), within the region.
        loops: How long the path was where each open loop began.
    """

    bound: Mapping[int, Run]
    num_qubits: int
    region: Region
    v2p: Int32
    seed: int
    path: list[tuple[int, int]] = field(default_factory=list)
    loops: list[int] = field(default_factory=list)

    def block(self, items: Block) -> Block:
        """Return the block on physical qubits; the placement goes on to its end."""
        out: list[Item] = []
        for item in items:
            out += self._item(item)
        return tuple(item for item in out if not isinstance(item, Run) or len(item))

    def _item(self, item: Item) -> list[Item]:
        match item:
            case Run():
                return [self._run(item)]
            case If(_, then, orelse):
                return [replace(item, then=self._closed(then), orelse=self._closed(orelse))]
            case While(_, body) | For(_, _, body):
                self.loops.append(len(self.path))
                body = self._closed(body)
                self.loops.pop()
                return [replace(item, body=body)]
            case Switch(_, cases, default):
                closed = tuple((labels, self._closed(body)) for labels, body in cases)
                rest = None if default is None else self._closed(default)
                return [replace(item, cases=closed, default=rest)]
            case Box(body, _):
                return [replace(item, body=self.block(body))]
            case Delay():
                where = self.region.qubits[self.v2p]
                return [replace(item, qubits=tuple(int(where[q]) for q in item.qubits))]
            case Break() | Continue():
                return [self._back(self.loops[-1] if self.loops else 0), item]
            case _:
                return [item]

    def _closed(self, body: Block) -> Block:
        """Return a block that ends with the qubits where they were before it."""
        mark, v2p = len(self.path), self.v2p
        inside = self.block(body)
        back = self._back(mark)
        del self.path[mark:]
        self.v2p = v2p
        return (*inside, back) if len(back) else inside

    def _run(self, run: Run) -> Run:
        skeleton, _ = skeleton_of(run, self.bound[id(run)], self.num_qubits, exchanging=False)
        starts = np.asarray(self.v2p, dtype=np.int32)[None]
        routed = route_skeleton(
            skeleton, self.num_qubits, self.region, _BUDGET, self.seed, starts, fixed=True
        )
        swaps = routed.event[routed.event[:, 0] == SWAP, 1:3]
        self.path += [(int(p), int(q)) for p, q in swaps]
        new, self.v2p = placed(skeleton, routed.event, self.v2p, len(self.region.qubits))
        return self._outside(new)

    def _back(self, mark: int) -> Run:
        """Return the swaps of the path since ``mark``, undone."""
        swaps = self.path[mark:][::-1]
        event = np.array([(SWAP, p, q, -1) for p, q in swaps], dtype=np.int32).reshape(-1, 4)
        nothing, _ = skeleton_of(Run.empty(), Run.empty(), self.num_qubits)
        run, _ = placed(nothing, event, self.v2p, len(self.region.qubits))
        return self._outside(run)

    def _outside(self, run: Run) -> Run:
        """Return a run on the device's own numbers."""
        bits = int(run.qubit[run.code == G.MEASURE, 1].max(initial=-1)) + 1
        where = np.asarray(self.region.qubits, dtype=np.int32)
        return run.relabel(where, np.arange(bits, dtype=np.int32))
