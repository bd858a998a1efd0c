"""Compiled kernels: one source that runs plain on small inputs and compiled on large ones.

A kernel is a plain Python function over numpy arrays. Below ``KERNEL_THRESHOLD`` elements the
plain function runs, so that a small circuit never waits for a compiler; above it numba compiles
the same function once and keeps the machine code in its cache. A process that has the machine code
uses it for small inputs too, and one that calls the plain form again and again gets it: both forms
give the same numbers.
"""

from __future__ import annotations

import functools
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["HOT_THRESHOLD", "KERNEL_THRESHOLD", "LOADED_THRESHOLD", "Kernel", "kernel"]

KERNEL_THRESHOLD = 4096
"""Elements from which on the compiled form pays for itself."""

LOADED_THRESHOLD = 32
"""Elements from which on the compiled form is quicker, once the process has it."""

HOT_THRESHOLD = 8 * KERNEL_THRESHOLD
"""Elements in all calls of a kernel together from which on the compiled form pays for itself."""

P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def _inlined(function: Callable[..., Any], bare: bool) -> None:
    """Let compiled code call ``function`` as it stands."""
    from numba.extending import register_jitable

    if bare:
        register_jitable(_nrt=False, forceinline=True)(function)
    else:
        register_jitable(function)


def _code(code: CodeType) -> bytes:
    """Return what a function does, the same bytes in every process.

    ``marshal`` writes the same code differently from process to process, by who else refers to its
    constants, and the kernel would be compiled again.
    """
    parts = [code.co_code, repr((code.co_names, code.co_varnames, code.co_cellvars)).encode()]
    for value in code.co_consts:
        if isinstance(value, CodeType):
            parts.append(_code(value))
        elif isinstance(value, frozenset):
            parts.append(repr(sorted(map(repr, value))).encode())
        else:
            parts.append(repr(value).encode())
    return b"\0".join(parts)


def _constants(function: Callable[..., Any]) -> bytes:
    """Return the values of the numbers and arrays of its module that a function names."""
    found = []
    for name in function.__code__.co_names:
        value: Any = function.__globals__.get(name)
        if isinstance(value, int | float):
            found.append(f"{name}={value!r}".encode())
        elif hasattr(value, "tobytes"):
            found.append(name.encode() + value.tobytes())
    return b"".join(found)


class Kernel(Generic[P, R]):
    """A function over arrays with a plain and a compiled form, which lets other threads run.

    Args:
        function: The plain function; nothing but what numba's nopython mode takes.
        calls: Plain functions that ``function`` calls, transitively, callees first.
        fastmath: Allow reassociation of floating-point sums.
        bare: Inline the helpers and keep no reference counts; no function may then allocate.
    """

    def __init__(
        self,
        function: Callable[P, R],
        calls: tuple[Callable[..., Any], ...] = (),
        fastmath: bool = False,
        bare: bool = False,
    ) -> None:
        self.python = function
        self._calls = calls
        self._fastmath = fastmath
        self._bare = bare
        self._compiled: Callable[P, R] | None = None
        self._met = 0
        functools.update_wrapper(self, function)

    def compiled(self) -> Callable[P, R]:
        """Return the compiled form; numba is imported here, not before."""
        if self._compiled is None:
            import numba

            for callee in self._calls:
                _inlined(callee, self._bare)
            # The cache of machine code goes by the kernel's own file: name it after its helpers
            # and constants too, or a change in one of them would leave the old code in use.
            used = b"".join(_code(callee.__code__) for callee in self._calls)
            used += b"".join(_constants(function) for function in (self.python, *self._calls))
            self.python.__qualname__ += f"_{zlib.crc32(used):08x}"
            options = {"_nrt": False} if self._bare else {}
            code = numba.njit(cache=True, nogil=True, fastmath=self._fastmath, **options)(
                self.python
            )

            def first(*args: P.args, **kwargs: P.kwargs) -> R:
                if not kwargs:
                    with _uninterrupted():
                        code.compile(tuple(numba.typeof(arg) for arg in args))
                self._compiled = code
                return code(*args, **kwargs)

            self._compiled = first
        return self._compiled

    @property
    def loaded(self) -> bool:
        """Whether this process has the compiled form already."""
        return self._compiled is not None

    def is_hot(self, size: int) -> bool:
        """Count ``size`` elements more; whether the compiled form is there or would pay by now.

        Args:
            size: Elements of work of the call at hand.
        """
        self._met += size
        return self.loaded or self._met >= HOT_THRESHOLD

    def at(self, size: int) -> Callable[P, R]:
        """Return the form that suits ``size`` elements of work.

        Args:
            size: Elements of work, gates or amplitudes.
        """
        small = size < LOADED_THRESHOLD or (size < KERNEL_THRESHOLD and not self.is_hot(size))
        return self.python if small else self.compiled()

    def by_size(self, size: int) -> Callable[P, R]:
        """Return the form that suits ``size`` elements, whatever ran before.

        For sums of floating-point numbers, whose last bit may differ between the forms: equal
        calls give equal bits.

        Args:
            size: Elements of work, amplitudes times gates.
        """
        return self.python if size < KERNEL_THRESHOLD >> 2 else self.compiled()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the compiled form."""
        return self.compiled()(*args, **kwargs)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait: one in the middle of compiling may take the process down with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
    if seen:
        signal.raise_signal(signal.SIGINT)


def kernel(
    *,
    calls: tuple[Callable[..., Any], ...] = (),
    fastmath: bool = False,
    bare: bool = False,
) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Make a :class:`Kernel` of a function: ``@kernel()`` or ``@kernel(calls=(helper,))``.

    Args:
        calls: Plain helper functions that the kernel calls, callees first.
        fastmath: Allow reassociation of floating-point sums.
        bare: Inline the helpers and keep no reference counts, which cost more than the work of a
            small helper; no function may then allocate.
    """

    def wrap(function: Callable[P, R]) -> Kernel[P, R]:
        return Kernel(function, calls, fastmath, bare)

    return wrap
