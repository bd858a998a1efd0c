"""Every method for weights of few bits, on the same models, judged by the ONNX file it emits.

    python benchmarks/low_bit.py DIR --json FILE [--only TEXT ...] [--models A,B] [--readme]

DIR holds models as ``quantize_tasks.py`` describes them; the character model and its twin with
outliers are made here (``examples/char_model``). Each (method, model) is done once: FILE keeps what
was found after each row, and a second run does what is missing, has another pipeline by now, or was
written before peaks of memory were measured, in this order. ``--only TEXT`` (again and again) does
rows with that text in '[tool] class name', ``--fresh TEXT`` does them anew.
``--peers ort,nncf --python nncf=PYTHON`` has other tools' rows.

Every figure is that of ONNX Runtime running the file on one thread: the task's metric and its drop,
SQNR (logits centred per position), KL(float || quantized) a token for language models, bytes over
float's, CPU time of a batch over float's (the two take turns, least of both), CPU seconds of the
compile but for checks, and its peak of memory above what was held before. Rows are compared inside
one class: what is stored in as many bits and blocks and runs as the same kind of kernel. The best
of its class and model has the least KL, or the largest SQNR.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import quantize_peers
from low_bit_methods import METHODS
from low_bit_peers import PEERS, kind
from quantize import LATENCY_BATCH, say, session
from quantize_tasks import Judge, Reference, Task, _first, read_tasks

CHAR_MODEL = Path(__file__).parents[1] / "examples" / "char_model"
MODELS = ("char", "char_outliers", "minilm_sts", "resnet20_cifar", "gpt_imdb")
ROWS = {"minilm_sts": 160, "resnet20_cifar": 1000}
"""Evaluation rows, for a run of an hour; ``--whole`` takes all."""

WINDOWS = 128
"""Calibration windows of the character model, 8,192 characters."""

TURNS = 15
LONGEST = 1800

Row = dict[str, Any]
Make = Callable[[Path], Row]


def char_tasks(folder: Path) -> list[Task]:
    """The character model and its twin with outliers, with their text."""
    sys.path.insert(0, str(CHAR_MODEL))
    import char_model
    import onnx

    sys.path.remove(str(CHAR_MODEL))
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    data = {"ids": char_model.calibration(train, WINDOWS)}
    tasks = []
    for name, chosen in (("char", weights), ("char_outliers", char_model.with_outliers(weights))):
        path = folder / f"{name}.onnx"
        onnx.save(char_model.graph(chosen), path)
        tasks.append(
            Task(name, path, "perplexity", data, {"ids": held_out[:, :-1]}, held_out[:, 1:])
        )
    return tasks


def all_tasks(folder: Path, scratch: Path, names: list[str], whole: bool) -> list[Task]:
    """The models that are asked for, in the order of :data:`MODELS`."""
    found = {task.name: task for task in char_tasks(scratch)}
    rest = tuple(name for name in names if name not in found)
    for task in read_tasks(folder, rest) if rest else []:
        short = task if whole or task.name not in ROWS else _first(task, ROWS[task.name])
        found[task.name] = short
    return [found[name] for name in names]


class Floating:
    """A model in float with its outputs, computed once.

    Args:
        task: The model and its data.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.session = task, session(task.onnx)
        self._references: list[Reference] = []

    def references(self) -> list[Reference]:
        if not self._references:
            start = 0
            for feeds in self.task.batches():
                real = Reference(self.task, self.session.run(None, feeds)[0], start)
                start = real.rows.stop
                self._references.append(real)
        return self._references


def compiled(task: Task, text: str, out: Path) -> Row:
    """Compile by a pipeline of ours; return CPU seconds, imports of the passes apart."""
    import numba  # noqa: F401  imports are no work

    import qcomp
    from qcomp.backends.onnx_int import OnnxIntBackend
    from qcomp.passmanager import Context, Pipeline
    from qcomp.target import get_target

    pipeline = Pipeline.parse(text)
    context = Context(calibration=lambda: iter([task.calibration]))
    program = qcomp.read(task.onnx)
    before = held_memory()
    start = time.process_time()
    pipeline.run(program, context)
    spent = time.process_time() - start
    peak = quantize_peers.memory("VmHWM") - before
    OnnxIntBackend().write(program, out, get_target("cpu-int4"), context)
    return {"cpu_s": spent, "peak": peak}


def held_memory() -> int:
    """Give back what is free, let Linux count the peak anew, and return the bytes that are held."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # of glibc
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return quantize_peers.memory("VmRSS")


def made_by(tool: str, config: str, python: str, task: Task, out: Path) -> Row:
    """Let another tool make the file, in a process of its own."""
    data = out.with_name("calibration.npz")
    np.savez(data, **task.calibration)  # type: ignore[arg-type]
    script = Path(__file__).with_name("low_bit_peers.py")
    command = [python, str(script), tool, config, str(task.onnx.resolve()), str(data), str(out)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=out.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LONGEST} s"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("ANSWER "):
            answer = json.loads(line.removeprefix("ANSWER "))
            if answer["ok"]:
                return {"cpu_s": answer["cpu_s"], "peak": answer["peak"]}
            return {"error": answer["error"]}
    return {"error": (done.stderr or "no answer").strip()[-200:]}


def judged(floating: Floating, out: Path) -> Row:
    """Run the file beside float: metric, distance, bytes, time."""
    task = floating.task
    try:
        one = session(out)
        judge = Judge(task)
        for real, feeds in zip(floating.references(), task.batches(), strict=True):
            judge.add(real, one.run(None, feeds)[0])
    except Exception as error:  # a peer's graph may be refused in any way
        return {"error": f"ONNX Runtime: {str(error)[:200]}"}
    feeds = next(task.batches(LATENCY_BATCH.get(task.metric, 16)))
    times: list[list[int]] = [[], []]
    for turn in range(TURNS + 2):
        for which, what in enumerate((floating.session, one)):
            start = time.thread_time_ns()
            what.run(None, feeds)
            if turn > 1:
                times[which].append(time.thread_time_ns() - start)
    size = sum(path.stat().st_size for path in out.parent.glob(f"{out.name}*"))
    return {
        **judge.result(),
        "size": size / task.onnx.stat().st_size,
        "latency": min(times[1]) / min(times[0]),
    }


def measured(floating: Floating, make: Make) -> Row:
    """Make a file and judge it; an error of a peer or of ours is a row, too."""
    from qcomp.errors import QcompError

    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out.onnx"
        try:
            row = make(out)
        except QcompError as error:
            row = {"error": str(error).splitlines()[0]}
        return row if "error" in row else {**row, **judged(floating, out)}


def better(row: Row, other: Row) -> bool:
    """Whether a row is nearer to float than another of its class and model."""
    if "kl" in row:
        return bool(row["kl"] < other["kl"])
    return bool(row["sqnr_db"] > other["sqnr_db"])


def winners(rows: list[Row]) -> dict[tuple[str, str], Row]:
    """(model, class) -> our best row of it."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        if "error" in row or row["tool"] != "qcomp":
            continue
        key = row["model"], row["kind"]
        if key not in best or better(row, best[key]):
            best[key] = row
    return best


def table(rows: list[Row]) -> str:
    """The rows as Markdown: bold wins its class on its model; then what never wins."""
    best = winners(rows)
    won = {id(row) for row in best.values()}
    lines = [
        "| model | class | method | metric | drop | SQNR dB | KL | size | latency | CPU s | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    for row in sorted(rows, key=lambda r: (MODELS.index(r["model"]), kinds.index(r["kind"]))):
        name = row["name"] if row["tool"] == "qcomp" else f"{row['tool']}: {row['name']}"
        head = f"| {row['model']} | {row['kind']} | {f'**{name}**' if id(row) in won else name} |"
        if "error" in row:
            lines.append(f"{head} {' '.join(row['error'].split())[:80]} | | | | | | | |")
            continue
        lines.append(
            f"{head} {row['float']:.4f} -> {row['value']:.4f} | {row['drop']:+.4f} "
            f"| {row['sqnr_db']:.1f} | {format(row['kl'], '.2e') if 'kl' in row else ''} "
            f"| {row['size']:.3f} | {row['latency']:.2f} | {row['cpu_s']:.1f} "
            f"| {format(row['peak'] / 1e6, '.0f') if 'peak' in row else ''} |"
        )
    ours = dict.fromkeys((r["kind"], r["name"]) for r in rows if r["tool"] == "qcomp")
    losers = [key for key in ours if key not in {(r["kind"], r["name"]) for r in best.values()}]
    said = ", ".join(f"{name} ({kind})" for kind, name in losers) or "none"
    return "\n".join([*lines, "", f"Never the best of its class on any of these models: {said}."])


def write_readme(text: str, path: Path) -> None:
    """Put the table between the marks of the benchmarks' README."""
    marks = "<!-- low-bit:begin -->", "<!-- low-bit:end -->"
    head, _, rest = path.read_text().partition(marks[0])
    _, _, tail = rest.partition(marks[1])
    path.write_text(f"{head}{marks[0]}\n{text}\n{marks[1]}{tail}")


def jobs(task: Task, peers: list[str], pythons: dict[str, str]) -> list[tuple[Row, Make]]:
    """What there is to do for a model: the head of each row, and what makes its file."""
    found: list[tuple[Row, Make]] = []
    for method in METHODS:
        text = method.pipeline(task)
        if text is not None:
            head = {"tool": "qcomp", "name": method.name, "kind": method.kind, "pipeline": text}
            found.append((head, partial(compiled, task, text)))
    for tool in peers if task.metric in ("perplexity", "spearman") else []:
        for config in PEERS[tool]:
            name, python = config.rsplit("-", 2)[0], pythons.get(tool, sys.executable)
            head = {"tool": tool, "name": name, "kind": kind(config), "pipeline": config}
            found.append((head, partial(made_by, tool, config, python, task)))
    return [({"model": task.name, **head}, make) for head, make in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="models with their data")
    parser.add_argument("--json", type=Path, required=True, help="keeps what was found")
    parser.add_argument("--models", default=",".join(MODELS), help="names, with commas")
    parser.add_argument("--only", action="append", default=[], help="part of '[tool] class name'")
    parser.add_argument("--fresh", action="append", default=[], help="the same: done again")
    parser.add_argument("--whole", action="store_true", help="judge by all evaluation rows")
    parser.add_argument("--peers", default="", help=f"of {', '.join(PEERS)}, with commas")
    parser.add_argument("--python", action="append", default=[], help="PEER=interpreter")
    parser.add_argument("--readme", action="store_true", help="write the table to README.md")
    options = parser.parse_args()
    names = [name for name in options.models.split(",") if name]
    unknown = set(names) - set(MODELS)
    if unknown:
        parser.error(f"no model {', '.join(sorted(unknown))}, there are {', '.join(MODELS)}")
    peers = [peer for peer in options.peers.split(",") if peer]
    if set(peers) - set(PEERS):
        parser.error(f"peers are {', '.join(PEERS)}")
    rows = run(
        options.folder,
        options.json,
        names,
        only=options.only,
        fresh=options.fresh,
        whole=options.whole,
        peers=peers,
        pythons=dict(item.split("=", 1) for item in options.python),
    )
    text = table(rows)
    print(text)
    if options.readme:
        write_readme(text, Path(__file__).with_name("README.md"))


def run(
    folder: Path,
    store: Path,
    names: list[str],
    *,
    only: list[str],
    fresh: list[str],
    whole: bool,
    peers: list[str],
    pythons: dict[str, str],
) -> list[Row]:
    """Do what is missing, then what has no peak; return the rows of what is asked today."""
    known: dict[str, Row] = json.loads(store.read_text()) if store.exists() else {}
    found: dict[str, Row] = {}
    done: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        tasks = all_tasks(folder, Path(scratch), names, whole)
        for whole_rows, task in itertools.product((False, True), tasks):
            floating: Floating | None = None
            for head, make in jobs(task, peers, pythons):
                label = f"{head['tool']} {head['kind']} {head['name']}"
                key = f"{task.name}: {label}"
                before = known.get(key, {})
                asked = not only or any(part in label for part in only)
                missing = any(part in label for part in fresh) and key not in done
                missing |= before.get("pipeline") != head["pipeline"] or before["rows"] != task.rows
                bare = whole_rows and not {"peak", "error"} & before.keys()
                if asked and (missing or bare):
                    say(key)
                    floating = floating or Floating(task)
                    known[key] = {**head, "rows": task.rows, **measured(floating, make)}
                    done.add(key)
                    save(known, store)
                elif missing:  # of another pipeline, or other data
                    continue
                found[key] = known[key]
            others = {k: r for k, r in known.items() if r["model"] == task.name}
            for key, row in others.items():  # of peers that were not asked this time
                if row["tool"] != "qcomp" and row["rows"] == task.rows:
                    found.setdefault(key, row)
    return list(found.values())


def save(known: dict[str, Row], store: Path) -> None:
    """Write the rows; whoever is stopped while it writes leaves those before."""
    part = store.with_name(f"{store.name}.part")
    part.write_text(json.dumps(known, indent=1))
    part.replace(store)


if __name__ == "__main__":
    main()
