"""The source and the artifact on the same data, as a whole or part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qcomp.layer_store import LayerStore

if TYPE_CHECKING:
    from qcomp.execute import HybridSession
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context
    from qcomp.runtime.artifact import Artifact

__all__ = ["COMPARED_BATCH", "COMPARED_SAMPLES", "compared"]

COMPARED_SAMPLES = 256
"""Samples of data that the compiled artifact is compared with the source on."""

COMPARED_BATCH = 4
"""Of them, those that are run at a time."""

_IN_PARTS = 2
"""Samples where neither may be in memory as a whole."""

Outputs = Mapping[str, Any]


def compared(
    source: Program,
    session: Callable[[], HybridSession],
    artifact: Artifact,
    context: Context,
) -> Iterator[tuple[int, Outputs, Outputs]]:
    """Run both on calibration data.

    Args:
        source: The float program.
        session: Opens it as a whole.
        artifact: What it became.
        context: Has the data; where it has a store of layers, both run part by part on two samples.

    Yields:
        Samples, outputs of the source, outputs of the artifact.
    """
    from qcomp.passes.calibrate.batches import checked_batches

    assert context.calibration is not None
    store = context.get(LayerStore)
    if store is not None and not source.circuits:
        yield from _in_parts(source, artifact, context, store)
        return
    whole, rows = session(), 0
    for feeds in checked_batches(source.model, context.calibration(), COMPARED_BATCH):
        if rows >= COMPARED_SAMPLES:
            return
        count = len(next(iter(feeds.values())))
        yield count, whole.run(feeds, shots=0), artifact.run(feeds, shots=0)
        rows += count


def _in_parts(
    source: Program, artifact: Artifact, context: Context, store: LayerStore
) -> Iterator[tuple[int, Outputs, Outputs]]:
    from qcomp.passes.calibrate.batches import checked_batches
    from qcomp.passes.quantize.streams import run_in_parts
    from qcomp.registry import load

    assert context.calibration is not None
    chunks, rows = [], 0
    for feeds in checked_batches(source.model, context.calibration(), 1):
        chunks.append(feeds)
        rows += len(next(iter(feeds.values())))
        if rows >= _IN_PARTS:
            break
    stages = [artifact.path / str(stage["file"]) for stage in artifact.manifest["stages"]]
    graph = load("frontends", "onnx")().read(stages[0], check_weights=False)
    with store.scratch() as folder:
        runs = [
            run_in_parts(p, chunks, folder / n) for n, p in (("a", source.copy()), ("b", graph))
        ]
        for feeds, expected, got in zip(chunks, *runs, strict=True):
            yield len(next(iter(feeds.values()))), expected, got
