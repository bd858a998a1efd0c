"""Kernels: what decides whether machine code of an earlier process may be used."""

import subprocess
import sys
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


def test_the_name_of_machine_code_is_the_same_in_every_process() -> None:
    code = (
        "from qcomp.passes.synthesize import cliffords, pauli_network\n"
        "from qcomp.kernels import Kernel, _code\n"
        "found = [k for m in (cliffords, pauli_network) for k in vars(m).values()"
        " if isinstance(k, Kernel)]\n"
        "print([zlib.crc32(_code(c.__code__)) for k in found for c in k._calls])"
    )
    # Held names change how marshal writes a code object.
    before = ("", "held = [sys.intern(w) for w in ('x', 'z', 'n', 'i')]\nimport numba\n")
    texts = {
        subprocess.run(
            [sys.executable, "-c", f"import sys, zlib\n{first}{code}"],
            capture_output=True, text=True, check=True,
        ).stdout
        for first in before
    }  # fmt: skip
    assert len(texts) == 1
    assert len(texts.pop()) > 50
