"""Weights rounded to nearest beforehand: by workers, and only those that no store has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qcomp.ir.mapped_tensor import MappedTensor
from qcomp.layer_store import LayerStore, digest, tensor_digest, versions, write_entry
from qcomp.passes.quantize.blocked_weights import RoundedWeight, Rounding
from qcomp.workers import Workers

if TYPE_CHECKING:
    from qcomp.passmanager import Context

__all__ = ["round_beforehand"]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    rounding: Rounding
    folder: Path
    key: str


def round_beforehand(weights: Sequence[RoundedWeight], context: Context) -> None:
    """Round weights into the context's store; without one they are rounded when they are saved.

    Args:
        weights: They get what they became, mapped.
        context: May hold a store and workers.

    Raises:
        QcompError: The disk is full, or workers die again and again.
    """
    store = context.get(LayerStore)
    if store is None or not weights:
        return
    workers = context.get(Workers) or Workers()
    missing: list[tuple[RoundedWeight, str]] = []
    with context.progress.task("rounding weights", len(weights)) as task:
        for weight in weights:
            r = weight.rounding
            made_of = (tensor_digest(r.tensor), r.by_rows, r.bits, r.group, r.symmetric, r.fit)
            key = digest("rounded", versions(), *made_of)
            entry = store.find(key)
            if entry is None:
                missing.append((weight, key))
            else:
                weight.finished = entry.arrays
                task.advance()
        pieces = (_Piece(_portable(w.rounding, workers), store.folder, key) for w, key in missing)
        done = workers.map(_round, pieces, "the rounding of a weight")
        for (weight, key), _ in zip(missing, done, strict=True):
            entry = store.find(key)
            if entry is not None:  # else somebody empties the folder: it is rounded when saved
                store.taken, store.made = store.taken - 1, store.made + 1
                weight.finished = entry.arrays
            task.advance()


def _portable(rounding: Rounding, workers: Workers) -> Rounding:
    """With a weight that another process can read: as a place in a file, or by its values."""
    import onnx_ir as ir

    if not workers.apart or isinstance(rounding.tensor, MappedTensor):
        return rounding
    return replace(rounding, tensor=ir.tensor(np.asarray(rounding.tensor.numpy())))


def _round(piece: _Piece) -> None:
    """Round one weight and put it into the store."""
    rounding = piece.rounding
    shape = rounding.tensor.shape.numpy()
    rows, columns = shape if rounding.by_rows else shape[::-1]
    count = -(-columns // rounding.group)
    levels = np.empty((rows, count, rounding.group), np.uint8)
    scale, zero = np.empty((rows, count), np.float32), np.empty((rows, count), np.uint8)
    for part, q, s, z in rounding.slabs():
        levels[part], scale[part], zero[part] = q, s, z
    write_entry(piece.folder, piece.key, {"levels": levels, "scale": scale, "zero": zero}, {})
