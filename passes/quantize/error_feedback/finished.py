"""What one pass of error feedback has finished, in a store on disk."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.layer_store import Entry, LayerStore, digest, give_back, model_digest, on_disk
from qcomp.quantization import ChosenWeight, FeedbackError
from qcomp.workers import Workers

if TYPE_CHECKING:
    from qcomp.ir.program import Program
    from qcomp.passes.quantize.learn_rounding_graph import Layer
    from qcomp.passmanager import Context

__all__ = ["Done", "Finished"]

Array = npt.NDArray[np.generic]
Done = tuple[ChosenWeight, FeedbackError, str]
"""The integers of a layer, what they cost, and a warning or ""."""


class Finished:
    """The layers of one pass: those that are finished, and where the others go.

    A context without a :class:`~qcomp.layer_store.LayerStore` keeps everything in memory and
    nothing beyond the run. A context manager: files that only the run needs go at its end.

    Args:
        context: May hold a store and workers.
    """

    def __init__(self, context: Context) -> None:
        self.store = context.get(LayerStore)
        self.workers = context.get(Workers)
        self._root = ""
        self._scratch: Path | None = None
        self._places = count()
        self._stack = ExitStack()

    def __enter__(self) -> Finished:
        """Return this."""
        if self.store is not None:
            self._scratch = self._stack.enter_context(self.store.scratch())
        return self

    def __exit__(self, *error: object) -> bool | None:
        """Remove what only the run needed."""
        return self._stack.__exit__(*error)  # type: ignore[arg-type]

    def describe(
        self, method: str, program: Program, chunks: Sequence[Mapping[str, Array]]
    ) -> None:
        """Say what all layers are made of: the method, the twin, the data, the versions."""
        if self.store is not None:
            data = [(name, array) for chunk in chunks for name, array in sorted(chunk.items())]
            parts = [part for pair in data for part in pair]
            self._root = digest(method, model_digest(program.model), len(chunks), *parts)

    def find(self, layer: Layer) -> Done | None:
        """Return a finished layer, None for one that is not."""
        if self.store is None:
            return None
        entry = self.store.find(self._key(layer))
        return None if entry is None else _done(entry)

    def keep(self, layer: Layer, done: Done) -> Done:
        """Put a finished layer on disk, if there is a store, and return it as it lies there."""
        if self.store is None:
            return done
        chosen, error, warning = done
        arrays: dict[str, Array] = {"levels": chosen.levels, "scale": chosen.scale}
        if chosen.zero_point is not None:
            arrays["zero"] = chosen.zero_point
        facts = {
            "axis": chosen.axis,
            "group": chosen.group,
            "bits": chosen.bits,
            "method": chosen.method,
            "error": asdict(error),
            "warning": warning,
        }
        return _done(self.store.put(self._key(layer), arrays, facts))

    def stream(
        self, chunks: Sequence[Mapping[str, Array]]
    ) -> list[MutableMapping[str, Array]] | None:
        """The chunks of one stream, on disk where there is a store."""
        place = self.place()
        return None if place is None else on_disk(chunks, place)

    def place(self) -> Path | None:
        """A folder that is not there yet, for files that only the run needs."""
        return None if self._scratch is None else self._scratch / str(next(self._places))

    def _key(self, layer: Layer) -> str:
        return digest(self._root, layer.weight, layer.bits)


def _done(entry: Entry) -> Done:
    arrays, facts = entry.arrays, entry.facts
    chosen = ChosenWeight(
        arrays["levels"],  # type: ignore[arg-type]
        np.array(arrays["scale"], np.float32),
        None if "zero" not in arrays else np.array(arrays["zero"], np.int8),
        facts["axis"],
        facts["group"],
        facts["bits"],
        facts["method"],
    )
    give_back(chosen.levels)
    return chosen, FeedbackError(**facts["error"]), facts["warning"]
