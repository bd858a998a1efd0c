"""The same program decided while compiling and decided by measurements must give the same result.

A program is made up around three bits. Once they are constants, so that everything is executed at
compile time; once they are measured, so that everything is control flow of the circuit.
"""

import random

import numpy as np
import pytest

from qcomp.ir.blocks import If, Switch, While
from qcomp.simulate import sample
from tests.openqasm.reading import read

WIDTH = 6


class Maker:
    """Makes up statements over the bits s[0..2], the int n, the array a and the counter k."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names = 0

    def condition(self) -> str:
        bit = f"s[{self.rng.randrange(3)}]"
        return self.rng.choice(
            [bit, f"!{bit}", f"{bit} == 0", "n > 7", "n % 3 == 1", f"n < 12 && {bit}", "s == 5",
             f"{bit} || n == 4", "a[1] > a[0]", f"bool({bit} ^ s[0])"]
        )  # fmt: skip

    def value(self) -> str:
        return self.rng.choice(
            ["n + 1", "n * 3", "n - 5", "n ^ 6", "n << 1", "n | 1", "a[0] + n", "s[1] + 2",
             "int[8](s) + n", "f(n)", "popcount(s) + n", "n / 2", "n % 7"]
        )  # fmt: skip

    def block(self, depth: int, loop: bool, routine: bool) -> str:
        statements = [self.statement(depth, loop, routine) for _ in range(self.rng.randint(1, 3))]
        return "{ " + " ".join(statements) + " }"

    def statement(self, depth: int, loop: bool, routine: bool) -> str:
        kinds = ["assign"] * 4 + ["array", "local"]
        if depth > 0:
            kinds += ["if", "if", "else", "for", "switch", "while"]
        if loop:
            kinds += ["break", "continue"]
        if routine:
            kinds += ["return"]
        kind = self.rng.choice(kinds)
        self.names += 1
        name = f"v{self.names}"
        inner = (depth - 1, loop, routine)
        condition = self.condition()
        match kind:
            case "assign":
                return f"n = {self.value()};"
            case "array":
                return f"a[{self.rng.randrange(2)}] = {self.value()};"
            case "local":
                return f"int[8] {name} = {self.value()}; {name} += 1; n = n + {name};"
            case "if":
                return f"if ({condition}) {self.block(*inner)}"
            case "else":
                return f"if ({condition}) {self.block(*inner)} else {self.block(*inner)}"
            case "switch":
                case = f"case {self.rng.randrange(4)}, {4 + self.rng.randrange(3)}"
                return f"switch (s) {{ {case} {self.block(*inner)} default {self.block(*inner)} }}"
            case "for":
                return f"for int[8] {name} in [0:2] {self.block(depth - 1, True, routine)}"
            case "while":
                body = self.block(depth - 1, True, routine)
                return f"int[8] {name} = 0; while ({name} < 3) {{ {name} += 1; {body} }}"
            case "return":
                return f"if ({condition}) {{ return {self.rng.choice(['n', 'n + 2', '9'])}; }}"
            case word:
                return f"if ({condition}) {{ n += 1; {word}; }}"

    def program(self, bits: tuple[int, ...], measured: bool) -> str:
        state = self.rng.getstate(), self.names
        routine = self.block(2, False, True)
        body = " ".join(self.statement(3, False, False) for _ in range(4))
        self.rng.setstate(state[0])
        self.names = state[1]
        flips = "".join(f"x q[{i}];" for i, bit in enumerate(bits) if bit)
        text = "".join(map(str, reversed(bits)))
        given = f"bit[3] s; {flips} s = measure q;" if measured else f'bit[3] s = "{text}";'
        # A subroutine sees the global bits as an argument: globals that vary are not its business.
        return f"""
        qubit[3] q; qubit[{WIDTH}] out; bit[{WIDTH}] r;
        def f0(int[8] n0, bit[3] s) -> int[8] {{ int[8] n = n0; int[8] m = n; int[8] w = 3; {{
          {routine.replace("a[0]", "m").replace("a[1]", "w").replace("f(n)", "n")}
        }} return n + 1; }}
        {given}
        int[8] n = 3; array[int[8], 2] a = {{2, 5}};
        {body.replace("f(n)", "f0(n, s)")}
        for int[8] i in [0:{WIDTH - 1}] {{ if ((n >> i & 1) == 1) {{ x out[i]; }} }}
        r = measure out;
        """


def result(text: str) -> tuple[int, ...]:
    circuit = read(text)
    start = next(r.start for r in circuit.cregs if r.name == "r")
    rows = sample(circuit, None, 2, np.random.default_rng(0))[0]
    assert (rows[0] == rows[1]).all()
    return tuple(int(b) for b in rows[0][start : start + WIDTH])


@pytest.mark.parametrize("seed", range(60))
def test_compile_time_and_run_time_agree(seed: int) -> None:
    maker = Maker(seed)
    bits = tuple(int(b) for b in f"{seed % 8:03b}")
    known, measured = maker.program(bits, False), maker.program(bits, True)
    assert result(known) == result(measured), measured


def test_the_measured_programs_do_have_control_flow() -> None:
    kinds = {type(item) for seed in range(20)
             for item in read(Maker(seed).program((1, 0, 1), True)).body}  # fmt: skip
    assert {If, Switch, While} <= kinds
