"""The documents say what the code does: examples run, tables are current, links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from qcomp.report.data import Report

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "tests" / "plugin_package"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of one language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def test_tables_in_the_readme_are_current() -> None:
    spec = importlib.util.spec_from_file_location(
        "generate_tables", ROOT / "docs" / "generate_tables.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "README.md").read_text()
    assert module.with_tables(text) == text, "run python docs/generate_tables.py"


def test_the_example_pass_is_the_one_that_is_installed() -> None:
    document = ROOT / "docs" / "writing_a_pass.md"
    source, _ = blocks(document, "python")
    assert source == (PACKAGE / "src/qcomp_drop_barriers/__init__.py").read_text()
    (toml,) = blocks(document, "toml")
    assert toml == (PACKAGE / "pyproject.toml").read_text()


def test_the_example_of_writing_a_pass_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    source, test = blocks(ROOT / "docs" / "writing_a_pass.md", "python")
    module = types.ModuleType("qcomp_drop_barriers")
    monkeypatch.setitem(sys.modules, "qcomp_drop_barriers", module)
    exec(compile(source, "writing_a_pass.md", "exec"), module.__dict__)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(test, "writing_a_pass.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 4
    for function in tests:
        assert callable(function)
        function()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_folders_and_modules_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r"`((?:qcomp|passes|frontends|backends|tests|docs)/[\w./-]*)`", text):
        if "*" not in name and "NNNN" not in name and "drop_barriers" not in name:
            assert (ROOT / name).exists(), name


def test_decisions_are_at_most_a_page() -> None:
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name)
        assert len(path.read_text().splitlines()) <= 60, path.name


def test_the_circuit_of_the_readme_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    example = next(b for b in blocks(ROOT / "README.md", "python") if "Circuit(2)" in b)
    exec(compile(example, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "Rz(2·x + π/4)" in out
    assert "OPENQASM 3" in out


def test_readme_starts_with_its_two_commands() -> None:
    """The first two shell blocks are one line each: install and compile, install and test."""
    first, second = blocks(ROOT / "README.md", "sh")[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert first.startswith("pip install . && qcomp compile examples/digits_hybrid/")
    assert second == "pip install '.[test]' && python -m pytest -q -n auto\n"


def test_the_first_command_compiles_within_half_a_point(tmp_path: Path) -> None:
    command = blocks(ROOT / "README.md", "sh")[0].partition("&& qcomp ")[2].split()
    command[command.index("-o") + 1] = str(tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-m", "qcomp", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = Report.from_json((tmp_path / "out" / "report.json").read_text())
    (line,) = report.accuracy
    assert line.source >= 0.95
    assert line.compiled >= line.source - 0.005
    assert all(check.result in ("proved", "measured") for check in report.checks)
    assert report.quantization is not None
    assert all(layer.output_sqnr is not None for layer in report.quantization.layers)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 3  # errors of the layers, the circuit, gates after each pass


def test_license_is_the_plain_apache_text() -> None:
    text = " ".join((ROOT / "LICENSE").read_text().split())
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text
    assert "Copyright [yyyy] [name of copyright owner]" in text
