"""A pass from another package: installed, used by name from the command line, never by surprise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "tests" / "plugin_package"
SOURCE = """OPENQASM 3.0;
include "stdgates.inc";
qubit[3] q;
h q[0];
barrier q[0], q[1];
cx q[0], q[1];
barrier q;
cx q[1], q[2];
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the plugin package was installed into, offline."""
    work = tmp_path_factory.mktemp("plugin")
    # A build writes beside its sources.
    shutil.copytree(PACKAGE, work / "source")
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-index", "--no-build-isolation"),
        *("--target", str(work / "site"), str(work / "source")),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return work / "site"


def qcomp(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line with a folder of plugins on the path."""
    folders = [str(ROOT)] if path is None else [str(path), str(ROOT)]
    return subprocess.run(
        [sys.executable, "-m", "qcomp", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
    )


def distribution(folder: Path, package: str, group: str, entry: str) -> None:
    """Install a package that has nothing but an entry point."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    (info / "METADATA").write_text(text)
    (info / "entry_points.txt").write_text(f"[qcomp.{group}]\n{entry}\n")


def test_pass_of_a_plugin_is_used_by_its_name(plugins: Path, tmp_path: Path) -> None:
    (tmp_path / "in.qasm").write_text(SOURCE)
    files = (str(tmp_path / "in.qasm"), "-o", str(tmp_path / "out.qasm"))
    done = qcomp("opt", *files, "-p", "drop-barriers", "--verify-each", path=plugins)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out.qasm").read_text()
    assert "barrier" not in text
    assert text.count("cx ") == 2


def test_options_of_a_plugin_pass_are_written_as_those_of_any_pass(
    plugins: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.qasm").write_text(SOURCE)
    files = (str(tmp_path / "in.qasm"), "-o", str(tmp_path / "out.qasm"))
    pipeline = "drop-barriers{max-qubits=2},merge-rotations"
    done = qcomp("opt", *files, "-p", pipeline, path=plugins)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.qasm").read_text().count("barrier") == 1
    done = qcomp("opt", *files, "-p", "drop-barriers{max-qubit=2}", path=plugins)
    assert done.returncode == 2
    assert "max_qubits" in done.stderr


def test_pass_of_a_plugin_is_listed(plugins: Path) -> None:
    done = qcomp("passes", "--json", path=plugins)
    assert '"drop-barriers"' in done.stdout
    assert '"drop-barriers"' not in qcomp("passes", "--json").stdout


def test_without_the_plugin_its_pass_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "in.qasm").write_text(SOURCE)
    done = qcomp("opt", str(tmp_path / "in.qasm"), "-p", "drop-barriers")
    assert done.returncode == 2
    assert "there is no pass named 'drop-barriers'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plugin_may_not_take_a_name_of_qcomp(tmp_path: Path) -> None:
    distribution(tmp_path, "greedy", "passes", "merge-rotations = greedy:Greedy")
    done = qcomp("passes", path=tmp_path)
    assert done.returncode == 2
    assert "two passes are named 'merge-rotations'" in done.stderr
    assert "greedy:Greedy" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_plugins_may_not_share_a_name(plugins: Path, tmp_path: Path) -> None:
    distribution(tmp_path, "other", "passes", "drop-barriers = other:DropBarriers")
    (tmp_path / "in.qasm").write_text(SOURCE)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(plugins), str(tmp_path), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "qcomp", "opt", str(tmp_path / "in.qasm"), "-p", "drop-barriers"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "two passes are named 'drop-barriers'" in done.stderr


def test_a_plugin_that_cannot_be_imported_is_one_clear_error(tmp_path: Path) -> None:
    distribution(tmp_path, "hollow", "passes", "hollow-pass = hollow_missing:Hollow")
    (tmp_path / "in.qasm").write_text(SOURCE)
    done = qcomp("opt", str(tmp_path / "in.qasm"), "-p", "hollow-pass", path=tmp_path)
    assert done.returncode == 2
    assert "hollow_missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_target_of_a_plugin_is_a_target(tmp_path: Path) -> None:
    distribution(tmp_path, "machine", "targets", "toy-machine = toy_machine:TARGET")
    (tmp_path / "toy_machine.py").write_text(
        "from qcomp.target import Target\n"
        "TARGET = Target('toy-machine', 'A toy', 'For tests.', 'circuit', 'openqasm3',\n"
        "    basis=('cz', 'rz', 'sx', 'x'),\n"
        "    pipelines={'default': 'to-basis{gates=[cz,rz,sx,x]}'})\n"
    )
    (tmp_path / "in.qasm").write_text(SOURCE)
    done = qcomp(
        *("compile", str(tmp_path / "in.qasm"), "-t", "toy-machine"),
        *("-o", str(tmp_path / "out")),
        path=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (text,) = [path.read_text() for path in (tmp_path / "out").glob("*.qasm")]
    assert "cx " not in text
    assert "cz " in text
