"""INT8 quantization beside other tools: accuracy, distance from float, bytes, latency, cost.

    python benchmarks/quantize.py [DIR] --peers ort --json OUT

DIR holds models with their data (see ``quantize_tasks.py``); without it, or with ``--trained``
beside it, two small models are trained here, a recurrent net and a U-Net. Every tool runs in a
process of its own and gets the same float file and the same calibration rows. A peer that needs an
environment of its own gets it by ``--python nncf=/path/to/python``. Judged over the whole
evaluation set:

- the task's metric, its drop against float and the drop's 95 % interval (paired bootstrap);
- SQNR = 10 log10(sum |y|^2 / sum |y - q|^2), logits centred per position; for a language model
  the mean of KL(float || quantized) a token;
- bytes of the file over float's; CPU time of one batch over float's, one thread, from 50 runs that
  take turns in one process (least, and lower quartile);
- CPU seconds of the quantization, imports and reports apart, and its peak of memory above what the
  imports left; the goal is three times the model, all values of a batch of 32 and 100 MB.

A goal that our row misses is bold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from quantize_tasks import BATCH, Judge, Reference, Task, read_tasks

PEERS = {
    "ort": ("static", "static-matmul", "dynamic"),
    "nncf": ("ptq",),
    "onc": ("static", "smooth"),
    "quark": ("u8",),
}
DYNAMIC = "dynamic"
"""The configuration, of any tool, that needs no data: a class of its own in CPU time."""

OURS = ("static", "dynamic")
DATA_FREE = "data-free"
"""Ours, static, calibrated on generated data: judged beside our static row."""

RUNS = 50
LONGEST = 1800
"""Seconds that a tool may take."""

LATENCY_BATCH = {"perplexity": 4, "spearman": 8}
"""Samples of a timed batch; 16 elsewhere."""

GOALS: dict[str, dict[str, float]] = {
    "minilm_sts": {"drop": 0.003, "sqnr_db": 18.0, "size": 0.253, "latency": 0.40},
    "gpt_imdb": {"sqnr_db": 39.5, "size": 0.26, "latency": 0.60},
    "resnet20_cifar": {"sqnr_db": 29.0, "size": 0.28, "latency": 0.55},
    "mobilenet_cifar": {"sqnr_db": 30.0, "size": 0.30, "latency": 0.65},
    "lstm": {"sqnr_db": 25.0, "size": 0.28},
    "unet": {"sqnr_db": 25.0, "size": 0.28},
}
"""Least SQNR, and most of everything else, of our static rows (39.5 dB: 48 before centring)."""

LATENCY_OVER_PEER = 1.03
"""A latency is good enough at that many times the best peer's, of those near the goal's SQNR."""

POINT = {"perplexity": 1.0}
"""What ``data-free`` may lose of a metric against calibrated, beside ``NEAR_DB``; else 0.01."""

NEAR_DB = 3.0
KL_OVER_PEER = 0.5
CPU_OVER_PEER = 1.5
DOES_NOTHING = 0.95
"""Size from which a peer has quantized nothing, so that its CPU time says nothing."""

Row = dict[str, Any]


def say(text: str) -> None:
    """Say how far the run is, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def kernels(path: Path, folder: Path) -> dict[str, int]:
    """Return operator -> count of the graph that ONNX Runtime makes of a file."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimised.onnx", load_external_data=False).graph
    found = Counter(node.op_type for node in graph.node)
    wanted = ("Quant", "QLinear", "QGemm", "Integer", "NBits", "Conv", "MatMul", "Gemm", "LSTM")
    return {op: n for op, n in found.most_common() if any(w in op for w in wanted)}


def activation_bytes(task: Task) -> int:
    """Bytes of all values that the float model makes of one batch."""
    import onnx

    model = onnx.load(task.onnx)
    given = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in given:
                model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    one = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return BATCH * sum(np.asarray(a).nbytes for a in one.run(None, next(task.batches(1))))


def time_all(task: Task, real: Any, rows: list[Row], sessions: list[Any]) -> None:
    """Note the least and the quartile ratio of CPU times of one batch, all taking turns."""
    size = LATENCY_BATCH.get(task.metric, 16)
    feeds = next(task.batches(size))
    times: list[list[int]] = [[] for _ in range(len(sessions) + 1)]
    for turn in range(RUNS + 2):
        for which, one in enumerate([real, *sessions]):
            start = time.thread_time_ns()
            one.run(None, feeds)
            if turn > 1:
                times[which].append(time.thread_time_ns() - start)
    a = np.array(times[0])
    for row, spent in zip(rows, times[1:], strict=True):
        b = np.array(spent)
        row["latency"] = float(b.min() / a.min())
        row["latency_quartile"] = float(np.quantile(b, 0.25) / np.quantile(a, 0.25))
        row["batch"] = size


def quantized(tool: str, config: str, python: str, task: Task, folder: Path) -> tuple[Row, Path]:
    """Run one tool in its process; return what it says and the file that it wrote."""
    data, out = folder / "calibration.npz", folder / "quantized.onnx"
    np.savez(data, **task.calibration)
    if (tool, config) == ("qcomp", DATA_FREE) and task.span is not None:
        config = f"{config}={task.span[0]:g},{task.span[1]:g}"
    command = [python, str(Path(__file__).with_name("quantize_peers.py")), tool, config]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, str(task.onnx.resolve()), str(data), str(out)],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"not done after {LONGEST} s"}, out
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("ANSWER "):
            return json.loads(line.removeprefix("ANSWER ")), out
    why = (done.stderr or "no answer").strip()[-300:]
    return {"ok": False, "error": f"ended with code {done.returncode}: {why}"}, out


def judged(task: Task, tools: list[tuple[str, str]], pythons: dict[str, str]) -> list[Row]:
    """Quantize a task's model by each tool, then measure all files side by side."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        running: list[tuple[Row, Any]] = []
        for index, (tool, config) in enumerate(tools):
            kind = config
            if tool == "nncf" and task.metric in ("perplexity", "spearman"):
                kind = f"{config}-transformer"
            say(f"{task.name}: {tool} {kind}")
            row: Row = {"model": task.name, "tool": tool, "config": kind, "metric": task.metric}
            rows.append(row)
            folder = Path(name) / str(index)
            folder.mkdir()
            answer, out = quantized(tool, kind, pythons.get(tool, sys.executable), task, folder)
            row.update(answer)
            if answer["ok"]:
                files = [out, *folder.glob("quantized.onnx.data")]
                files += folder.glob("quantized.onnx_data")
                row["bytes"] = sum(path.stat().st_size for path in files)
                row["size"] = row["bytes"] / task.onnx.stat().st_size
                try:
                    row["kernels"] = kernels(out, folder)
                    running.append((row, session(out)))
                except Exception as error:  # a peer's graph may be refused in any way
                    row.update(ok=False, error=f"ONNX Runtime: {str(error)[:300]}")
            if not row["ok"]:
                say(f"  {row['error']}")
        _measure(task, running)
    limit = 3 * task.onnx.stat().st_size + activation_bytes(task) + 100e6
    for row in rows:
        row["peak_goal"] = limit
    return rows


def _measure(task: Task, running: list[tuple[Row, Any]]) -> None:
    """Judge all files by the whole evaluation set, then time them."""
    real = session(task.onnx)
    judges = [Judge(task) for _ in running]
    start = 0
    for feeds in task.batches():
        reference = Reference(task, real.run(None, feeds)[0], start)
        start = reference.rows.stop
        for judge, (row, one) in zip(judges, running, strict=True):
            if not row["ok"]:
                continue
            try:
                judge.add(reference, one.run(None, feeds)[0])
            except Exception as error:  # a peer's graph may fail in any way
                row.update(ok=False, error=f"ONNX Runtime: {str(error)[:300]}")
    for judge, (row, _) in zip(judges, running, strict=True):
        if row["ok"]:
            row.update(judge.result())
    fine = [(row, one) for row, one in running if row["ok"]]
    time_all(task, real, [row for row, _ in fine], [one for _, one in fine])


def missed(row: Row, rows: list[Row]) -> list[str]:
    """Return the goals that one of our rows misses, beside the peers' rows of the same run."""
    peers = [r for r in rows if r["ok"] and r["tool"] != "qcomp" and r["model"] == row["model"]]
    if row["config"] == DATA_FREE:
        return missed_without_data(row, rows)
    goals = {} if row["config"] == DYNAMIC else dict(GOALS.get(row["model"], {}))
    near = [r["latency"] for r in peers if r["sqnr_db"] >= goals.get("sqnr_db", 0.0) - NEAR_DB]
    if near and "latency" in goals:
        goals["latency"] = max(goals["latency"], LATENCY_OVER_PEER * min(near))
    divergences = [r["kl"] for r in peers if "kl" in r and r["config"] == DYNAMIC]
    if divergences and goals:
        goals["kl"] = KL_OVER_PEER * min(divergences)
    same = [
        r["cpu_s"]
        for r in peers
        if (r["config"] == DYNAMIC) == (row["config"] == DYNAMIC) and r["size"] < DOES_NOTHING
    ]
    if same:
        goals["cpu_s"] = CPU_OVER_PEER * min(same)
    goals["peak"] = row["peak_goal"]
    out = []
    for name, limit in goals.items():
        value = row[name]
        if (value < limit) if name == "sqnr_db" else (value > limit * (1.0 + 1e-9)):
            out.append(name)
    return out


def missed_without_data(row: Row, rows: list[Row]) -> list[str]:
    """Return what a data-free row loses too much of, beside our calibrated one of the same run."""
    ours = [r for r in rows if r["ok"] and (r["tool"], r["config"]) == ("qcomp", "static")]
    out = []
    for static in (r for r in ours if r["model"] == row["model"]):
        if row["drop"] > static["drop"] + POINT.get(row["metric"], 0.01):
            out.append("drop")
        if row["sqnr_db"] < static["sqnr_db"] - NEAR_DB:
            out.append("sqnr_db")
    return out


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown; our figures that miss a goal are bold."""
    lines = [
        "| model | tool | metric | drop [95 %] | SQNR dB | KL | size | latency (quartile) | "
        "CPU s (checks) | peak / goal MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row['model']} | {row['tool']} {row['config']} |"
        if not row["ok"]:
            lines.append(f"{head} failed: {' '.join(row['error'].split())[:80]} | | | | | | | |")
            continue
        bad = missed(row, rows) if row["tool"] == "qcomp" else []

        def cell(name: str, text: str, bad: list[str] = bad) -> str:
            return f"**{text}**" if name in bad else text

        lines.append(
            f"{head} {row['float']:.4f} -> {row['value']:.4f} | "
            + cell("drop", f"{row['drop']:+.4f}")
            + f" [{row['drop_low']:+.4f}, {row['drop_high']:+.4f}] | "
            + cell("sqnr_db", "exact" if row["sqnr_db"] > 300 else f"{row['sqnr_db']:.1f}")
            + (" | " + cell("kl", f"{row['kl']:.2e}") + " | " if "kl" in row else " | | ")
            + cell("size", f"{row['size']:.3f}")
            + " | "
            + cell("latency", f"{row['latency']:.2f}")
            + f" ({row['latency_quartile']:.2f}) | "
            + cell("cpu_s", f"{row['cpu_s']:.2f}")
            + (f" ({row['checks_cpu_s']:.2f})" if "checks_cpu_s" in row else "")
            + " | "
            + cell("peak", f"{row['peak'] / 1e6:.0f}")
            + f" / {row['peak_goal'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def write_readme(text: str) -> None:
    """Put the table between the marks of the benchmarks' README."""
    path = Path(__file__).with_name("README.md")
    head, _, rest = path.read_text().partition("<!-- quantize:begin -->")
    _, _, tail = rest.partition("<!-- quantize:end -->")
    marks = "<!-- quantize:begin -->", "<!-- quantize:end -->"
    path.write_text(f"{head}{marks[0]}\n{text}\n{marks[1]}{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="models with their data")
    parser.add_argument("--models", default="", help="names in DIR, with commas; all by default")
    parser.add_argument("--trained", action="store_true", help="also the models trained here")
    parser.add_argument("--configs", default=",".join(OURS), help="ours, with commas")
    parser.add_argument("--pipeline", action="append", default=[], help="a pipeline of ours")
    parser.add_argument("--peers", default="", help=f"of {', '.join(PEERS)}, with commas")
    parser.add_argument("--python", action="append", default=[], help="PEER=interpreter")
    parser.add_argument("--rows", type=int, help="judge by the first rows, for a quick look")
    parser.add_argument("--json", type=Path, help="where all figures go")
    parser.add_argument("--readme", action="store_true", help="write the table to README.md")
    options = parser.parse_args()
    pythons = dict(item.split("=", 1) for item in options.python)
    tools = [("qcomp", config) for config in filter(None, options.configs.split(","))]
    tools += [("qcomp", text) for text in options.pipeline]
    for peer in filter(None, options.peers.split(",")):
        if peer not in PEERS:
            parser.error(f"no peer '{peer}', there are {', '.join(PEERS)}")
        tools += [(peer, config) for config in PEERS[peer]]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        names = tuple(filter(None, options.models.split(",")))
        tasks = [] if options.folder is None else read_tasks(options.folder, names, options.rows)
        if options.folder is None or options.trained:
            from quantize_train import train

            train(Path(scratch))
            tasks += read_tasks(Path(scratch), () if tasks else names, options.rows)
        for task in tasks:
            rows += judged(task, tools, pythons)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    text = table(rows)
    print(text)
    if options.readme:
        write_readme(text)


if __name__ == "__main__":
    main()
