"""Workers and a store of finished layers for a compile, where it needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.errors import QcompError
from qcomp.layer_store import LayerStore
from qcomp.model_file import INLINE_LIMIT, model_bytes
from qcomp.workers import Workers

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context

__all__ = ["layer_work"]


@contextmanager
def layer_work(
    context: Context,
    model: ir.Model,
    out: Path,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    cache: str | Path | None = None,
) -> Iterator[None]:
    """Give passes workers and a store, for as long as the block lasts.

    A store is there for weights of more than 256 MiB, for several workers, and where a folder is
    named; else all stays in memory. One that nobody named lies beside the output, and goes when the
    compile ends well.

    Args:
        context: Gets both.
        model: What is compiled.
        out: The folder that is written.
        jobs: Local processes.
        scheduler: Address of a Dask scheduler.
        cache: Folder of finished layers.

    Raises:
        UsageError: Workers or a folder that cannot be had.
    """
    with Workers(jobs, scheduler) as workers:
        context.put(workers)
        if cache is None and not workers.apart and model_bytes(model) <= INLINE_LIMIT:
            yield
            return
        place = out.parent / f"{out.name}.layers" if cache is None else cache
        store = LayerStore(place, keep=cache is not None)
        context.put(store)
        try:
            yield
        except BaseException as error:
            if isinstance(error, QcompError):
                if store.finished and store.goes_on not in error.hint:
                    error.hint = "; ".join(text for text in (error.hint, store.goes_on) if text)
            elif isinstance(error, KeyboardInterrupt) and store.finished:
                error.add_note(store.goes_on)
            if store.is_empty:
                store.close()
            raise
        store.close()
