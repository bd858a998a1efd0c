"""``qcomp compile``: a source for one machine, or a hybrid model for two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from qcomp.cli.common import (
    CouplingOption,
    DeviceOption,
    EffortOption,
    FractionalOption,
    JsonOption,
    LayoutOption,
    MapOption,
    PrintAfterOption,
    SeedOption,
    TimePassesOption,
    VerifyEachOption,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compile", help=_HELP)(compile_command)


_HELP = """Compile SOURCE for a machine.

SOURCE is an ONNX file, a .pt2 file, OpenQASM, or an array (.npy, .npz). Targets: see 'qcomp
targets'; a hybrid model takes a classical and a quantum one joined by a plus.

Examples:

  qcomp compile model.onnx -t cpu-int8 --calib data.npz -o out

  qcomp compile hybrid.onnx -t cpu-int8+ibm-heron --calib data.npz --labels y.npz -o out

  qcomp compile model.onnx -t cpu-int8 --calib data.npz --exclude '/head/*' -o out

  qcomp compile model.onnx -t qnn-int8 --calib data.npz --labels y.npz --max-drop 0.5% -o out

  qcomp compile decoder.onnx -t cpu-int4 --calib data.npz --eval text.txt -o out

  qcomp compile circuit.qasm -t ibm-heron --device fake_torino -o out

  qcomp compile circuit.qasm -t machine.json --initial-layout 3,4,5 -o out

  qcomp compile circuit.qasm -t clifford+t --max-error 1e-3 -o out

  qcomp compile unitary.npy -t ibm-heron -o out

  qcomp compile model.onnx -t cpu-int8+portable --calib data.npz --lower fc1=orthogonal -o out

Methods that --lower makes circuits of layers by (what each costs is said as a note):

  orthogonal: a MatMul, Gemm or Conv by its singular values, pyramids of RBS gates; {block=8}

  swap-test: a MatMul, Gemm or Conv, each output an overlap of two registers; {form=bell|ancilla}

  hypergraph: a MatMul or Gemm of binary weights behind a Sign

  hadamard: a Conv that keeps the size, fitted by scales of Walsh-Hadamard frequencies; {form=adds}

  quanvolution: a Conv, each filter a small circuit over the patches

OUT is a folder: graphs as .onnx, circuits as .qasm, program.json, report.html and report.json.
"""


def compile_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="ONNX, .pt2 or OpenQASM file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    target: Annotated[
        str | None,
        typer.Option(
            "-t", "--target", help="Target, see 'qcomp targets', or a JSON file that describes one."
        ),
    ] = None,
    device: DeviceOption = None,
    coupling: CouplingOption = None,
    initial_layout: LayoutOption = None,
    mapping: MapOption = True,
    fractional: FractionalOption = False,
    calib: Annotated[
        Path | None,
        typer.Option(
            "--calib",
            help="Calibration data: .npz with arrays named as the model's inputs, samples first, "
            "or a folder of images; 'generated' where there is none.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help=".npz with labels (y); the report then says the accuracy."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", help="How raw data becomes inputs: FILE.json or module:func."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="What is measured on the labels: accuracy, mean-squared-error, perplexity, "
            "cosine, rank-correlation, or module:function or FILE.py:function of outputs and "
            "labels.",
        ),
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Less of your own metric is better.")
    ] = False,
    max_drop: Annotated[
        str | None,
        typer.Option(
            "--max-drop",
            metavar="0.5%",
            help="Keep the worst layers in float until the metric drops by at most so much of the "
            "source's figure; without %, in the metric's own units.",
        ),
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(
            "--max-bytes",
            metavar="2MB",
            help="The graph's file has at most so many bytes: bits go to the tensors that the "
            "outputs depend on (-t cpu-mixed).",
        ),
    ] = None,
    max_latency_ratio: Annotated[
        str | None,
        typer.Option(
            "--max-latency-ratio",
            metavar="0.7",
            help="The graph takes at most so much of the float graph's time on one sample: bits go "
            "by measured times of its operators (-t cpu-mixed).",
        ),
    ] = None,
    latencies: Annotated[
        str | None,
        typer.Option(
            "--latencies",
            metavar="FILE",
            help="Their times: a file, measured on this machine and written where it is not there; "
            "'shipped' for the table that comes with the target.",
        ),
    ] = None,
    max_error: Annotated[
        str | None,
        typer.Option(
            "--max-error",
            metavar="1e-3",
            help="Rotations become Clifford gates and T (-t clifford+t); the circuit changes by at "
            "most so much in operator norm.",
        ),
    ] = None,
    max_observable_error: Annotated[
        str | None,
        typer.Option(
            "--max-observable-error",
            metavar="0.01",
            help="The same, and no observable changes by more on any row of --states.",
        ),
    ] = None,
    max_t: Annotated[
        str | None,
        typer.Option(
            "--max-t", metavar="N", help="The same with at most N T gates, as near as they come."
        ),
    ] = None,
    observable: Annotated[
        list[str] | None,
        typer.Option(
            "--observable",
            metavar="Z0*Z1",
            help="What is looked at, by default Z of each qubit. Repeatable.",
        ),
    ] = None,
    states: Annotated[
        Path | None,
        typer.Option(
            "--states", help=".npz with the states that the circuit begins in (states), a row each."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="auto|gptq|gptaq|gpfq|rounding",
            help="How weights of few bits are rounded; auto: each layer by the method with the "
            "least measured output error.",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval",
            metavar="TEXT",
            help="Text file: the report then says perplexity and divergence of a language model, "
            "or the likeness of embeddings, a sentence a line. Arrays are taken as --labels.",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", help="The model's tokenizer.json, if it is not beside the model."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens",
            metavar="decode|prefill|both",
            help="Weights of few bits: rows that are computed at once, one, many, or both; each "
            "layer gets the kernel that is faster then.",
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option("-p", "--pipeline", help="Passes for the graph in place of the target's."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave these operators as they are: a name, a glob, op:TYPE or sub:PREFIX. "
            "Repeatable.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", metavar="PATTERN", help="Quantize these operators only. Repeatable."
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="PATTERN{...}",
            help="Options of single operators: 'op:Gemm{bits=4,method=mse,scheme=static}'. "
            "Repeatable.",
        ),
    ] = None,
    lower: Annotated[
        list[str] | None,
        typer.Option(
            "--lower",
            metavar="NODE=METHOD",
            help="This layer becomes circuits: '/fc1/Gemm=orthogonal'. The methods are listed "
            "above; it needs a quantum target beside the classical one. Repeatable.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", help="Processes of this machine that round layers.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="A Dask scheduler whose workers round layers: tcp://host:8786.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FOLDER",
            help="Finished layers: a compile that was killed goes on from there. Of models above "
            "256 MiB they lie in OUT.layers until it has ended well.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="unitary|state|image",
            help="What an array is; by default its shape says.",
        ),
    ] = None,
    array: Annotated[
        str | None, typer.Option("--array", metavar="NAME", help="Which array of a .npz file.")
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option("--accuracy", help="Of a unitary: how far the matrix may be from one."),
    ] = None,
    fidelity: Annotated[
        float | None,
        typer.Option("--fidelity", help="Of a state: how much of it the circuit has to meet."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="Of an image: how much a pixel may change.")
    ] = None,
    effort: EffortOption = "default",
    seed: SeedOption = 0,
    verify_each: VerifyEachOption = False,
    print_after: PrintAfterOption = None,
    time_passes: TimePassesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import bars, emit_json, layout_of, pass_observer, saying_how_to_go_on
    from qcomp.driver import compile as compile_source

    observer = pass_observer(print_after, json_output)
    asked = {
        "kind": kind,
        "array": array,
        "accuracy": accuracy,
        "fidelity": fidelity,
        "epsilon": epsilon,
    }
    with bars() as progress, saying_how_to_go_on():
        artifact = compile_source(
            source,
            target=target,
            device=device,
            coupling=coupling,
            initial_layout=layout_of(initial_layout),
            mapping=mapping,
            fractional=fractional,
            out=out,
            calibration=calib,
            labels=labels,
            preprocess=preprocess,
            metric=metric,
            higher_is_better=False if lower_is_better else None,
            max_drop=max_drop,
            max_bytes=max_bytes,
            max_latency_ratio=max_latency_ratio,
            latencies=latencies,
            max_error=max_error,
            max_observable_error=max_observable_error,
            max_t=max_t,
            observables=observable or (),
            states=states,
            method=method,
            evaluation=evaluation,
            tokenizer=tokenizer,
            tokens=tokens,
            pipeline=pipeline,
            exclude=exclude or (),
            include=include or (),
            override=override or (),
            lower=lower or (),
            effort=effort,
            seed=seed,
            verify_each=verify_each,
            jobs=jobs,
            scheduler=scheduler,
            cache=cache,
            progress=progress,
            observer=observer,
            **{name: value for name, value in asked.items() if value is not None},
        )
    if json_output:
        emit_json(dict(artifact.report))
        return
    _show(dict(artifact.report), time_passes)
    print(f"wrote {out}/ (open {out}/report.html)")


def _show(report: dict[str, Any], time_passes: bool) -> None:
    """Print the report's main figures."""
    from qcomp.cli.common import delta, show_table

    sizes = report.get("sizes") or {}
    rows = [
        (label, sizes[before], sizes[after])
        for label, before, after in (
            ("bytes of the files", "source", "graphs"),
            ("bytes of the weights", "weights_before", "weights_after"),
        )
        if sizes.get(before) and sizes.get(after)
    ]
    for circuit in report["circuits"]:
        synthesised = any(line["kind"] == "approximation" for line in report["budget"])
        for key in ("gates", "two_qubit", *(("t_count",) if synthesised else ()), "depth"):
            rows.append(
                (f"{circuit['name']}: {key}", circuit["before"][key], circuit["after"][key])
            )
    for line in report["accuracy"]:
        label = f"{line['metric']} on {line['samples']} samples"
        rows.append((label, line["source"], line["compiled"]))
    if rows:
        show_table(("", "before", "after"), rows)
    if report.get("bound"):
        from qcomp.report.data import Report

        bound = Report.from_json(json.dumps(report)).bound
        if bound is not None:
            print(bound.sentence)
            for layer in bound.kept:
                print(f"  in float: {layer.layer} ({layer.op}, alone {layer.sqnr:.1f} dB)")
    for circuit in report["circuits"]:
        success = circuit.get("success")
        if success and success["probability"] is not None:
            print(
                f"expected success of '{circuit['name']}' on {success['device']}: "
                f"{success['probability']:.3g}"
            )
    if time_passes:
        shown = [
            (p["name"], p["seconds"], delta(p["before"], p["after"]), p["check"] or "not checked")
            for p in report["passes"]
        ]
        show_table(("pass", "CPU s", "change", "check"), shown)
    for check in report["checks"]:
        error = "" if check["error"] is None else f", {check['measure']} {check['error']:.3g}"
        print(f"{check['result']}: {check['what']} ({check['how']}{error})")
    for warning in report["warnings"]:
        print(f"note: {warning}")
