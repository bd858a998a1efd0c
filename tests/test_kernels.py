"""Kernels: what decides whether machine code of an earlier process may be used."""

import types

import numpy as np
import pytest

from qcomp.kernels import KERNEL_THRESHOLD, LOADED_THRESHOLD, Kernel

TABLE = np.array([1, 2, 3])


def total(x: int) -> int:
    return x + TABLE[0]


def _named(table: np.ndarray) -> str:  # type: ignore[type-arg]
    """The name under which the machine code goes when the module's table is this one."""
    copy = types.FunctionType(total.__code__, {**globals(), "TABLE": table}, "total")
    made = Kernel(copy)
    made.compiled()
    return copy.__qualname__


def test_machine_code_goes_by_the_tables_that_it_has_taken_in() -> None:
    assert _named(TABLE) == _named(TABLE.copy())
    assert _named(TABLE) != _named(np.array([1, 2, 4]))
    assert _named(TABLE) != _named(np.array([1, 2, 3, 0]))


def test_a_kernel_that_is_asked_again_and_again_gets_its_machine_code() -> None:
    made = Kernel(lambda x: x)
    assert made.at(KERNEL_THRESHOLD - 1) is made.python
    while not made.is_hot(KERNEL_THRESHOLD - 1):
        pass
    assert not made.loaded
    assert made.at(LOADED_THRESHOLD - 1) is made.python
    assert made.at(LOADED_THRESHOLD) is not made.python
    assert made.loaded


def test_ctrl_c_waits_until_a_kernel_is_compiled_and_then_arrives(monkeypatch) -> None:
    import signal

    import numba

    from qcomp.kernels import Kernel

    real, done = numba.njit, []

    def slow(*functions, **options):
        if functions or options.get("cache") is not True:  # numba's own
            return real(*functions, **options)

        def wrap(function):
            code = real(**options)(function)
            compile_ = code.compile

            def interrupted(signature):
                signal.raise_signal(signal.SIGINT)
                compile_(signature)
                done.append(signature)

            code.compile = interrupted
            return code

        return wrap

    monkeypatch.setattr(numba, "njit", slow)

    def double(x):
        return 2 * x

    made = Kernel(double)
    with pytest.raises(KeyboardInterrupt):
        made(21)
    assert len(done) == 1
