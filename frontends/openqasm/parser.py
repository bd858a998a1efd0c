"""From OpenQASM text to a syntax tree, with every syntax error placed by line and column."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.build import Builder
from qcomp.frontends.openqasm.limits import MAX_NESTING, MAX_SOURCE_BYTES
from qcomp.frontends.openqasm.syntax import Program

__all__ = ["decode", "parse", "version_of"]

_HEADER = re.compile(r"(?:\s+|//[^\n]*|/\*(?s:.)*?\*/)*+OPENQASM\s++([0-9]++)(?:\.([0-9]++))?\s*+;")
_CALIBRATION = re.compile(
    r"//[^\n]*|/\*(?s:.)*?\*/|\"[^\"\n]*\"|#?\bpragma\b[^\n]*|^[ \t]*@[^\n]*|\b(?:def)?cal\b",
    re.MULTILINE,
)
_BRACKET = re.compile(r"//[^\n]*|/\*(?s:.)*?\*/|\"[^\"\n]*\"|[][(){}]")


def decode(data: bytes) -> str:
    """Return the text of a source's bytes.

    Raises:
        SourceError: If the source is too large for the grammar or is not UTF-8.
    """
    if len(data) > MAX_SOURCE_BYTES:
        raise SourceError(
            f"the source has {len(data)} bytes, more than {MAX_SOURCE_BYTES}",
            why="it is not straight-line text, so it goes through the full grammar",
            hint="write definitions and control flow out, one gate a statement",
            line=1,
            column=1,
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise SourceError(
            f"byte 0x{data[error.start]:02x} is not UTF-8 text",
            line=line,
            column=column,
            hint="save the source as UTF-8",
        ) from None


def version_of(text: str) -> tuple[int, int] | None:
    """Return the version that the source's header states, None without a header."""
    match = _HEADER.match(text)
    return (int(match[1][:9]), int((match[2] or "0")[:9])) if match else None


def parse(text: str) -> Program:
    """Return the syntax tree of a source.

    The grammar follows the header: OpenQASM 2 where it says so, else OpenQASM 3.

    Raises:
        SourceError: For any syntax error, with its line and column.
    """
    version = version_of(text)
    if version is not None and version[0] not in (2, 3):
        place = text.find("OPENQASM", text.find("OPENQASM"))
        line, column = _line_column(text, place)
        raise SourceError(
            f"OpenQASM {version[0]}.{version[1]} is no known version",
            line=line,
            column=column,
            hint="write OPENQASM 3.0; or OPENQASM 2.0;",
        )
    two = version is not None and version[0] == 2
    _check_brackets(text)
    try:
        tree = _grammar().parse(
            text if two else _blank_calibrations(text), start="program2" if two else "program3"
        )
    except lark.exceptions.UnexpectedInput as error:
        raise _syntax_error(text, error, two) from None
    except lark.exceptions.LarkError as error:
        raise SourceError(f"the source cannot be parsed: {error}", line=1, column=1) from None
    assert isinstance(tree, Program)
    return tree


# ---------------------------------------------------------------- the grammar, built once


@functools.cache
def _grammar() -> lark.Lark:
    """The LALR parser; its tables come from the user's cache, or are built and put there.

    The cache is JSON, never a pickle, and its name holds lark's version and the grammar's hash.
    """
    text = resources.files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    key = hashlib.sha256(f"{lark.__version__}\n{text}".encode()).hexdigest()[:24]
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118  never raises
    cached = Path(folder) / "qcomp" / f"openqasm-{key}.json"
    try:
        return _restored(cached.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        tables = _built(text)
    _store(cached, tables)
    return _restored(tables)


def _built(text: str) -> str:
    """Return the parser's tables as JSON."""
    grammar = lark.Lark(
        text,
        parser="lalr",
        lexer="contextual",
        start=["program3", "program2"],
        maybe_placeholders=True,
    )
    return json.dumps(grammar.memo_serialize([TerminalDef, Rule]))


def _restored(tables: str) -> lark.Lark:
    """Return the parser of these tables."""
    data, memo = json.loads(
        tables,
        object_pairs_hook=lambda pairs: {int(k) if k.isdigit() else k: v for k, v in pairs},
    )
    grammar: lark.Lark = lark.Lark.__new__(lark.Lark)
    grammar._load({"data": data, "memo": memo}, transformer=Builder())
    return grammar


def _store(path: Path, tables: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as out:
            out.write(tables)
        Path(out.name).replace(path)
    except OSError:
        return  # A cache that cannot be written costs time only.


# ---------------------------------------------------------------- before the grammar


def _line_column(text: str, place: int) -> tuple[int, int]:
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)


def _check_brackets(text: str) -> None:
    """Refuse brackets nested so deep that no later step should have to meet them."""
    depth = 0
    for match in _BRACKET.finditer(text):
        mark = match[0]
        if mark in "([{":
            depth += 1
            if depth > 4 * MAX_NESTING:
                line, column = _line_column(text, match.start())
                raise SourceError(
                    f"brackets nested more than {4 * MAX_NESTING} levels deep",
                    line=line,
                    column=column,
                    hint="split the expression or the block",
                )
        elif mark in ")]}":
            depth = max(0, depth - 1)


def _blank_calibrations(text: str) -> str:
    """Return the text with the bodies of cal and defcal blocks blanked, line breaks kept.

    A body is another language; its braces balance.
    """
    if "cal" not in text:
        return text
    parts: list[str] = []
    done = 0
    for match in _CALIBRATION.finditer(text):
        if match.start() < done or match[0] not in ("cal", "defcal"):
            continue
        opened = text.find("{", match.end())
        semicolon = text.find(";", match.end())
        if opened < 0 or -1 < semicolon < opened:
            continue
        depth, at = 1, opened + 1
        while depth:
            nearest = re.compile(r"[{}]").search(text, at)
            if nearest is None:
                line, column = _line_column(text, opened)
                raise SourceError(f"the {match[0]} block is never closed", line=line, column=column)
            depth += 1 if nearest[0] == "{" else -1
            at = nearest.end()
        parts.append(text[done : opened + 1])
        parts.append(re.sub(r"[^\r\n]", " ", text[opened + 1 : at - 1]))
        done = at - 1
    parts.append(text[done:])
    return "".join(parts)


# ---------------------------------------------------------------- syntax errors in plain words

_SPELLING = {
    "IDENT": "a name", "IDENT2": "a name", "INT": "a number", "FLOAT": "a number",
    "HEX": "a number", "OCTAL": "a number", "BINARY": "a number", "IMAGINARY": "a number",
    "TIMING": "a duration", "BITSTRING": "a bit string", "STRING": "a quoted path",
    "HARDWARE": "a physical qubit", "LBRACE": "'{'", "RBRACE": "'}'", "LPAR": "'('",
    "RPAR": "')'", "LSQB": "'['", "RSQB": "']'", "SEMICOLON": "';'", "COMMA": "','",
    "EQUAL": "'='", "ARROW": "'->'", "COLON": "':'", "AT": "'@'", "$END": "the end of the file",
    "INT_T": "'int'", "FLOAT_T": "'float'", "PRAGMA": "a pragma", "ANNOTATION": "an annotation",
}  # fmt: skip
_OPERATORS = frozenset(
    "OR AND PIPE CARET AMPERSAND EQUALITY COMPARISON SHIFT PLUS MINUS STAR SLASH PERCENT POWER "
    "TILDE BANG".split()
)


def _expected(names: Iterable[str]) -> str:
    words: list[str] = []
    for name in sorted(names):
        if name in _OPERATORS or (name.startswith("__") and name.endswith("EQUAL")):
            word = "an operator"
        else:
            word = _SPELLING.get(name, f"'{name.lower()}'")
        if word not in words:
            words.append(word)
    if not words or len(words) > 7:
        return ""
    return "expected " + (
        words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
    )


def _syntax_error(text: str, error: lark.exceptions.UnexpectedInput, two: bool) -> SourceError:
    line, column = error.line, error.column
    expected: Iterable[str] = ()
    if isinstance(error, lark.exceptions.UnexpectedToken):
        token = error.token
        expected = error.accepts or error.expected
        found = str(token)
        if token.type == "$END":
            end = len(text.rstrip())
            line, column = _line_column(text, end)
            what = "the source ends in the middle of a statement"
        else:
            what = f"unexpected {found if len(found) < 40 else found[:40] + '...'!r}"
    elif isinstance(error, lark.exceptions.UnexpectedCharacters):
        found = text[error.pos_in_stream] if error.pos_in_stream < len(text) else ""
        expected = error.allowed or ()
        what = f"unexpected {found!r}" if found else "the source ends in the middle of a statement"
    else:
        found, what = "", "the source ends in the middle of a statement"
    if line is None or line < 1 or column is None or column < 1:
        line, column = _line_column(text, len(text.rstrip()))
    return SourceError(
        what, line=line, column=column, why=_expected(expected), hint=_hint(text, line, found, two)
    )


def _hint(text: str, line: int, found: str, two: bool) -> str:
    lines = text.split("\n", line)
    if not two and len(lines) >= line and lines[line - 1].lstrip().startswith("opaque"):
        return "opaque is OpenQASM 2; begin the source with OPENQASM 2.0;"
    if found == "OPENQASM":
        return "the version stands once, as the first statement"
    if found == "/":
        return "is a block comment never closed?"
    if two and found in ("for", "while", "switch", "def", "qubit", "bit", "let", "ctrl", "inv"):
        return f"{found} is OpenQASM 3; begin the source with OPENQASM 3.0;"
    return ""
