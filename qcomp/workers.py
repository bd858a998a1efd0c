"""Where independent pieces of work run: here, in processes of this machine, on a Dask cluster.

One way to run them, :meth:`Workers.map`, over any ``concurrent.futures`` executor. Pieces are the
same wherever they run, and results come in the order of the pieces: so the bytes are the same. A
process that dies takes nothing along but the pieces it had: they run again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from types import TracebackType
from typing import Any, TypeVar

from qcomp.errors import QcompError, UsageError

__all__ = ["Workers"]

T = TypeVar("T")
R = TypeVar("R")

_DEATHS = 3
"""Deaths of workers in a row, without a result in between, after which the work is given up."""

_SECONDS = 10
"""How long a scheduler may take to answer."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Workers:
    """Runs pieces of work; a context manager.

    Args:
        jobs: Local processes; 1 runs everything in this one.
        scheduler: Address of a Dask scheduler in place of local processes, as
            ``tcp://host:8786``. Its workers have to see the same files.

    Raises:
        UsageError: ``jobs`` below 1, Dask is not installed, or nothing answers at the address.
    """

    def __init__(self, jobs: int = 1, scheduler: str | None = None) -> None:
        if jobs < 1:
            raise UsageError(f"{jobs} jobs cannot do anything", hint="--jobs 1 or more")
        if scheduler is not None and jobs > 1:
            raise UsageError(
                "a cluster has its own number of workers", hint="give --jobs or --scheduler"
            )
        self.jobs, self.scheduler = jobs, scheduler
        self._executor: Executor | None = None
        self._client: Any = None  # distributed has no types
        self._before: dict[str, str | None] = {}
        if scheduler is not None:
            self._connect(scheduler)

    @property
    def apart(self) -> bool:
        """Whether work runs in other processes."""
        return self.jobs > 1 or self.scheduler is not None

    def __enter__(self) -> Workers:
        """Return the workers."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop them; what has not begun is not begun."""
        self._stop()
        if self._client is not None:
            self._client.close()
            self._client = None

    def map(
        self,
        function: Callable[[T], R],
        pieces: Iterable[T],
        label: str | Callable[[T], str] = "its work",
    ) -> Iterator[R]:
        """Run a function on every piece; give the results in the order of the pieces.

        Args:
            function: A function of a module, for other processes have to find it.
            pieces: Taken as workers become free: no more than twice as many as there are workers
                wait.
            label: What is done, for messages; or what says it of a piece.

        Raises:
            QcompError: A worker died again and again, or what the function raises.
        """
        if not self.apart:
            yield from map(function, pieces)
            return
        waiting: deque[tuple[T, Future[R]]] = deque()
        source = iter(pieces)
        deaths = 0
        while True:
            try:
                while len(waiting) < 2 * self._width():
                    piece = next(source, source)
                    if piece is source:
                        break
                    waiting.append((piece, self._submit(function, piece)))  # type: ignore[arg-type]
            except BrokenExecutor:
                waiting.append((piece, Future()))  # type: ignore[arg-type]
                waiting[-1][1].set_exception(BrokenExecutor())
            if not waiting:
                return
            try:
                result = waiting[0][1].result()
            except Exception as error:
                said = label if isinstance(label, str) else label(waiting[0][0])
                self._check_lost(error, said)
                if not _is_death(error):
                    raise
                deaths += 1
                if deaths >= _DEATHS:
                    raise QcompError(
                        f"a worker died {deaths} times while it did {said}",
                        why=str(error) or "the process ended without a word",
                        hint="there may be too little memory for as many: give fewer --jobs",
                    ) from error
                self._stop()
                waiting = deque((piece, self._submit(function, piece)) for piece, _ in waiting)
                continue
            deaths = 0
            waiting.popleft()
            yield result

    def _submit(self, function: Callable[[T], R], piece: T) -> Future[R]:
        if self._executor is None:
            self._executor = self._begin()
        return self._executor.submit(function, piece)

    def _begin(self) -> Executor:
        if self._client is not None:
            executor: Executor = self._client.get_executor(pure=False)
            return executor
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        # Processes that are forked from one with threads may hang; each gets one thread.
        for name in _THREADS:
            self._before.setdefault(name, os.environ.get(name))
            os.environ[name] = "1"
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.jobs, mp_context=spawn, initializer=_begin_worker)

    def _stop(self) -> None:
        if self._executor is not None and self._client is not None:
            self._executor.shutdown(wait=False)  # Dask's own, which cancels what waits
        elif self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()

    def _check_lost(self, error: Exception, label: str) -> None:
        if self._client is not None and isinstance(error, (CancelledError, OSError)):
            raise QcompError(
                f"the Dask cluster at '{self.scheduler}' was lost while it did {label}",
                why=str(error),
                hint="look after its scheduler",
            ) from error

    def _width(self) -> int:
        if self._client is None:
            return self.jobs
        return max(1, len(self._client.nthreads()))

    def _connect(self, scheduler: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise UsageError(
                "a Dask scheduler needs Dask, which is not installed",
                hint="pip install 'qcomp[dask]', or give --jobs for processes of this machine",
            ) from error
        try:
            make: Any = Client
            self._client = make(scheduler, timeout=_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, ImportError) as error:
            raise UsageError(
                f"no Dask scheduler answers at '{scheduler}'",
                why=" ".join(str(error).split())[:300],
                hint="start one with 'dask scheduler' and give its address: tcp://host:8786",
            ) from error
        if not self._client.nthreads():
            self._client.close()
            raise UsageError(
                f"the Dask scheduler at '{scheduler}' has no workers",
                hint="start some with 'dask worker ADDRESS'",
            )


def _is_death(error: Exception) -> bool:
    """Whether a worker died of it: not the work's own error."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def _begin_worker() -> None:
    """Leave Ctrl-C to the process that began this one, and end with it, however it ends."""
    import multiprocessing
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
