"""Parameters declared in a row are read at once, and mean and fail as one by one."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.reader import read_text
from qcomp.frontends.openqasm.scanner import scan, scan_file
from qcomp.ir.circuit import Circuit
from tests.openqasm.reading import error, read
from tests.timing import timed

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
NAMES = [f"p{k}" for k in range(200)]


def declared(names: list[str], between: str = "\n") -> str:
    return HEAD + between.join(f"input float[64] {name};" for name in names) + "\n"


def used(names: list[str]) -> str:
    """Text that turns qubit k by the k-th name."""
    return f"qubit[{len(names)}] q;\n" + "\n".join(
        f"rx({name}) q[{k}];" for k, name in enumerate(names)
    )


def turns(circuit: Circuit) -> dict[int, str]:
    """Qubit -> the parameter that it is turned by."""
    run = circuit.run
    rows = (circuit.forms.row(int(run.form[run.angle[i]])) for i in range(len(run)))
    return {
        int(run.qubit[i, 0]): circuit.params[column] for i, ((column, _factor),) in enumerate(rows)
    }


def taken(text: str | bytes) -> Circuit:
    circuit = scan(text)
    assert circuit is not None
    return circuit


@pytest.mark.parametrize(
    "between",
    [
        "\n",
        " ",
        "",
        "\r\n\t",
        "\n// of the first layer\n",
        "//\n//input float p0;\n",
        " // a; b;\r",
    ],
)
def test_a_row_of_parameters_with_spaces_and_comments_between_is_all_of_them(between: str) -> None:
    circuit = taken(declared(NAMES, between) + used(NAMES))
    assert list(circuit.params) == NAMES
    assert turns(circuit) == dict(enumerate(NAMES))


def test_every_way_to_write_a_declaration_may_stand_in_a_row() -> None:
    kinds = ["float", "float[64]", "float [ 64 ]", "float\n[64]\n", "float\t"]
    ways = itertools.cycle(kinds)
    text = HEAD + "\n".join(f"input  {next(ways)} {name} ;" for name in NAMES) + used(NAMES)
    assert taken(text).params == read(text).params == tuple(NAMES)


def test_rows_between_other_declarations_and_gates_count_on() -> None:
    text = declared(NAMES) + "qubit[400] q;\nbit[3] c;\nrx(p7) q[7];\n"
    more = [f"w{k}" for k in range(200)]
    text += declared(more).removeprefix(HEAD) + "input float last;\nry(w5) q[5]; ry(last) q[0];"
    circuit = taken(text)
    assert list(circuit.params) == [*NAMES, *more, "last"]
    assert turns(circuit) == {7: "p7", 5: "w5", 0: "last"}


def test_block_comments_and_arrays_in_a_row_are_read_too() -> None:
    for between in ("/* input float no; */", "input array[float[64], 2] w;", "input angle a;"):
        text = declared(NAMES[:100]) + between + declared(NAMES[100:]).removeprefix(HEAD)
        text += used(NAMES)
        circuit = read_text(text)
        assert circuit.params == read(text).params
        assert turns(circuit) == dict(enumerate(NAMES))


WRONG = {
    "p3": "'p3' is declared twice",
    "pi": "'pi' is a built-in constant",
    "while": "'while'",
    "q-r": "'-'",
    "7up": "unexpected '7'",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_declaration_in_a_row_is_named_with_its_line(name: str) -> None:
    text = declared([*NAMES[:100], name, *NAMES[100:]]) + used(NAMES)
    assert scan(text) is None
    with pytest.raises(SourceError) as caught:
        read_text(text)
    assert WRONG[name] in str(caught.value)
    assert caught.value.line == 3 + 100
    alone = error(text)
    assert (caught.value.what, caught.value.line, caught.value.column) == (
        alone.what,
        alone.line,
        alone.column,
    )


def test_a_parameter_may_take_the_name_of_a_gate_that_is_not_called() -> None:
    names = [*NAMES[:100], "cx", *NAMES[100:]]
    text = declared(names) + used(names)
    assert scan(text) is None
    assert turns(read_text(text)) == dict(enumerate(names))


def test_a_name_that_is_no_parameters_stays_what_it_was() -> None:
    text = HEAD + "qubit[2] p50;\n" + declared(NAMES).removeprefix(HEAD)
    with pytest.raises(SourceError, match="'p50' is declared twice") as caught:
        read_text(text)
    assert caught.value.line == 4 + 50


def test_openqasm_2_has_no_parameters() -> None:
    text = declared(NAMES).replace("3.0", "2.0").replace("stdgates", "qelib1")
    assert scan(text) is None
    with pytest.raises(SourceError) as caught:
        read_text(text)
    assert caught.value.line == 3


def test_a_declaration_that_is_cut_off_is_an_error_at_its_place() -> None:
    text = declared(NAMES) + "input float[64] "
    with pytest.raises(SourceError) as caught:
        read_text(text)
    assert caught.value.line == 3 + len(NAMES)


def test_names_of_one_code_are_told_apart() -> None:
    # The code of a name is a polynomial in 31: "Aa" and "BB" have the same.
    names = ["".join(parts) for parts in itertools.product(("Aa", "BB"), repeat=8)]
    assert turns(taken(declared(names) + used(names))) == dict(enumerate(names))


def test_long_names_and_letters_of_other_alphabets_are_read() -> None:
    for names in ([f"p{k}_{'x' * 100}" for k in range(200)], [f"θ{k}" for k in range(200)]):
        text = declared(names) + used(names)
        assert turns(taken(text)) == dict(enumerate(names))
    assert scan(declared([*NAMES, "bad"]).encode().replace(b"bad", b"b\xffd")) is None


def test_a_table_that_grew_in_one_step_goes_on_growing_name_by_name() -> None:
    row = [f"p{k}" for k in range(3000)]
    single = [f"w{k}" for k in range(3000)]
    text = declared(row) + "".join(f"bit b{k};\ninput float {w};\n" for k, w in enumerate(single))
    names = row + single
    assert turns(taken(text + used(names))) == dict(enumerate(names))


def test_a_file_is_read_as_its_text_is(tmp_path: Path) -> None:
    path = tmp_path / "ansatz.qasm"
    path.write_text(declared(NAMES) + used(NAMES))
    circuit = scan_file(path)
    assert circuit is not None
    assert turns(circuit) == dict(enumerate(NAMES))


@timed
def test_a_row_of_parameters_is_read_much_faster_than_one_by_one() -> None:
    names = [f"p{k}" for k in range(10_000)]
    row = declared(names)
    apart = HEAD + "\n".join(f"input float[64] {name};\nbit b_{name};" for name in names)

    def seconds(text: str) -> float:
        start = time.process_time()
        assert taken(text).num_params == len(names)
        return time.process_time() - start

    pairs = [(seconds(row), seconds(apart)) for _ in range(3)]
    assert min(one for one, _ in pairs) < min(other for _, other in pairs) / 4
