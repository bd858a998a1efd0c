"""The driver: source -> frontend -> pipeline -> backend -> artifact, checked and reported.

The only module that knows frontends, passes and backends; the command line is a thin layer on it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcomp.angle_limits import AngleLimits
from qcomp.artifact_format import MANIFEST, REPORT
from qcomp.atomic import atomic_folder
from qcomp.deadline import Deadline
from qcomp.errors import QcompError, SourceError, TargetError, UsageError, suggest
from qcomp.expected_tokens import expecting
from qcomp.ir.program import Program
from qcomp.latency_limit import take_limits
from qcomp.layer_lowering import lower_layers
from qcomp.layer_work import layer_work
from qcomp.lowering import lower_arrays, lowered_copy, lowered_first
from qcomp.passmanager import Context, PassRecord, Pipeline, Progress
from qcomp.read_options import check_options, with_examples
from qcomp.registry import load as load_part
from qcomp.registry import names
from qcomp.rounding_method import with_method
from qcomp.runtime.artifact import Artifact
from qcomp.target import EFFORTS, Target
from qcomp.target_choice import check_fit, choose_targets

if TYPE_CHECKING:
    from qcomp.cost import CostModel
    from qcomp.equivalence import Verdict
    from qcomp.equivalence.layered import Judgement
    from qcomp.ir.circuit import Circuit
    from qcomp.ir.observable import Observable

__all__ = [
    "compile",
    "deadline_of",
    "effort_pipeline",
    "judge",
    "optimize",
    "read",
    "single_circuit",
    "verify",
]

Observer = Callable[[PassRecord, Program], None]


def read(source: object, **options: Any) -> Program:  # noqa: ANN401  a frontend's own options
    """Read a source with the frontend that takes it.

    Args:
        source: A path or text of OpenQASM; a path, bytes or model of ONNX; a PyTorch module (with
            ``example_inputs``), an exported program or ``.pt2`` file; a Qiskit, pytket or Cirq
            circuit; a numpy array, ``.npy`` or ``.npz`` file: a unitary, a state, an image; a
            :class:`~qcomp.ir.circuit.Circuit` or :class:`~qcomp.ir.program.Program`.
        options: Options of the frontend, ``example_inputs`` for PyTorch, ``kind`` for arrays.

    Returns:
        The program.

    Raises:
        SourceError: If no frontend takes the source, or it cannot be read.
    """
    from qcomp.ir.circuit import Circuit

    if isinstance(source, Program):
        return source
    if isinstance(source, Circuit):
        return Program.of_circuit(source)
    if isinstance(source, str | Path) and _is_missing_file(source):
        raise SourceError(f"there is no file '{source}'", hint="check the path")
    for name in names("frontends"):
        frontend = load_part("frontends", name)()
        if frontend.accepts(source):
            check_options(frontend.read, options, name)
            program = frontend.read(source, **options)
            assert isinstance(program, Program)
            return program
    what = f"'{source}'" if isinstance(source, str | Path) else f"an object of {type(source)}"
    raise SourceError(
        f"no frontend reads {what}",
        hint="give OpenQASM (.qasm), ONNX (.onnx), a .pt2 file, a PyTorch module, a circuit, or "
        "an array (.npy, .npz)",
    )


def _is_missing_file(source: str | Path) -> bool:
    text = str(source)
    one_line = "\n" not in text and ";" not in text and len(text) < 4096
    return one_line and not Path(text).exists()


def optimize(
    source: Circuit | Program | object,
    *,
    effort: str = "default",
    pipeline: str | None = None,
    seed: int = 0,
    verify_each: bool = False,
    seconds: float | None = None,
    cost: CostModel | str | None = None,
    allow: Sequence[str] = (),
    progress: Progress | None = None,
) -> Circuit | Program:
    """Run a pipeline of passes; the source itself is not changed.

    Args:
        source: A circuit, a program, or anything :func:`read` takes.
        effort: ``fast``, ``default`` or ``max``: a named pipeline of circuit passes.
        pipeline: A pipeline's text, in place of the effort's.
        seed: Seed of everything random.
        verify_each: Whether every pass's promise is checked.
        seconds: Wall time in which ``max`` looks for something better; by default it takes a number
            of steps, and the same seed gives the same bytes.
        cost: What ``max`` makes less, such as ``"t"``, ``"gates+10*two_qubit"`` or
            ``CostModel.of_device(device)``.
        allow: Rules that use more than the unitary: ``zero-start``, ``permutation``, ``only-bits``,
            see :func:`~qcomp.pipelines.with_rules`.
        progress: Where long work shows how far it is.

    Returns:
        A circuit for a circuit, else a program.

    Raises:
        UsageError: If the effort, a pass or an option is unknown.
        PassError: If a pass fails.
    """
    from qcomp.ir.circuit import Circuit

    program = read(source)
    if isinstance(source, Program):
        program = program.copy()
    passes = effort_pipeline(effort, pipeline, cost, allow=allow)
    context = Context(seed=seed, verify_each=verify_each)
    context.deadline = deadline_of(seconds, effort, pipeline)
    if progress is not None:
        context.progress = progress
    lower_arrays(program, context, passes)
    passes.run(program, context)
    return program.only_circuit if isinstance(source, Circuit) else program


def effort_pipeline(
    effort: str,
    pipeline: str | None = None,
    cost: CostModel | str | None = None,
    target: Target | None = None,
    allow: Sequence[str] = (),
) -> Pipeline:
    """Return the pipeline of a text, or the one that an effort names.

    Args:
        effort: fast, default or max.
        pipeline: A pipeline's text, in place of the effort's.
        cost: What ``max`` makes less, ``errors`` for the target's error rates.
        target: The machine, if any.
        allow: Rules that use more than the unitary.

    Raises:
        UsageError: If the effort, a pass, an option, the cost or a rule is unknown.
    """
    from qcomp.cost import CostModel
    from qcomp.pipelines import EFFORT_PIPELINES, for_cost, with_rules

    if effort not in EFFORTS:
        raise UsageError(f"there is no effort '{effort}'", hint=suggest(effort, EFFORTS))
    if cost is not None:
        if pipeline is not None:
            raise UsageError(
                "a pipeline of one's own takes no cost besides",
                hint="write it there: best{cost=t}(way(...),way(...)) or search{cost=t}",
            )
        text = for_cost(CostModel.for_target(cost, target), effort, target)
    elif pipeline is not None:
        text = pipeline
    else:
        text = EFFORT_PIPELINES[effort] if target is None else target.pipeline(effort)
    return Pipeline.parse(with_rules(text, allow))


def deadline_of(seconds: float | None, effort: str, pipeline: str | None) -> Deadline | None:
    """Return when a pipeline is to end that was given so many seconds; None for no such time.

    Raises:
        UsageError: If the time is none, or the effort takes no time.
    """
    if seconds is None:
        return None
    if effort != "max" and pipeline is None:
        raise UsageError(
            f"the effort '{effort}' takes no time in seconds: it ends by itself",
            hint="give the time to the effort max",
        )
    return Deadline(seconds)


def compile(  # noqa: A001  the name that users of compilers expect
    source: object,
    example_inputs: object = None,
    *,
    target: object = None,
    device: object = None,
    coupling: object = None,
    initial_layout: Sequence[int] | None = None,
    mapping: bool = True,
    fractional: bool = False,
    out: str | Path | None = None,
    calibration: object = None,
    labels: object = None,
    preprocess: object = None,
    metric: object = None,
    higher_is_better: bool | None = None,
    max_drop: object = None,
    max_bytes: object = None,
    max_latency_ratio: object = None,
    latencies: object = None,
    max_error: object = None,
    max_observable_error: object = None,
    max_t: object = None,
    observables: Sequence[str] = (),
    states: object = None,
    method: str | None = None,
    evaluation: str | Path | None = None,
    tokenizer: str | Path | None = None,
    tokens: str | None = None,
    seed: int = 0,
    effort: str = "default",
    pipeline: str | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    override: Sequence[str] = (),
    lower: Sequence[str] = (),
    verify_each: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    observer: Observer | None = None,
    **options: Any,  # noqa: ANN401  a frontend's own options
) -> Artifact:
    """Compile a source for a machine, or a hybrid model for two.

    Args:
        source: Anything :func:`read` takes.
        example_inputs: Of a PyTorch module, as :func:`read` takes them.
        target: A target's name or JSON file, or a classical and a quantum one joined:
            ``cpu-int8+ibm-heron``; a :class:`~qcomp.target.Target`; a Qiskit ``BackendV2`` or
            ``Target``. May be left out where ``device`` says its gates.
        device: The machine to map circuits to: a name such as ``fake_torino`` or ``grid-10x10``, a
            JSON file, a :class:`~qcomp.device.Device`, or a Qiskit backend or target.
        coupling: Coupled pairs, or a file with them, in place of a device.
        initial_layout: The physical qubit of each of the circuit's qubits, where that is not left
            to the mapping.
        mapping: Whether circuits are mapped to the machine's couplings.
        fractional: Whether gates of the machine's fractional mode are used, such as ``rzz``.
        out: Folder to write; a temporary one that lives as long as the artifact by default.
        calibration: Input data, samples first: a ``.npz`` path with arrays named as the model's
            inputs, a dict of arrays, an iterable of dicts, a torch DataLoader, an ONNX Runtime
            CalibrationDataReader, or a folder of images; the word ``generated`` where there is
            none, see :mod:`qcomp.passes.calibrate.generate_data`.
        labels: Labels of the calibration samples, or a file that also holds its own inputs; the
            report then says the accuracy before and after.
        preprocess: How raw data becomes inputs: a JSON file or ``module:function``.
        metric: What is measured on the labels: ``accuracy``, ``mean-squared-error``,
            ``perplexity``, ``cosine``, ``rank-correlation``, ``module:function``,
            ``file.py:function`` or a function of outputs and labels; by default what suits them.
        higher_is_better: Whether more of a function's figure is better; it is, by default.
        max_drop: How much worse the figure may get: ``"0.5%"`` of the source's, or a number in its
            own units. The worst layers stay in float until that is met.
        max_bytes: How large the graph's file may be, such as ``"2MB"``: where a pipeline shares
            bits out (``cpu-mixed``), each tensor gets so many that the outputs lose least.
        max_latency_ratio: The graph's time on one sample over float's: ``0.7``, ``"70%"``.
        latencies: Its table of operators' times: a file, measured and written where it is not
            there; ``"shipped"`` for the target's own; measured and kept for the user by default.
        max_error: How much the circuit may change, in operator norm up to a global phase, where a
            machine has no rotations of any angle: they become Clifford gates and T.
        max_observable_error: How much an observable may change on any row of ``states``, in its
            place; a number or ``"1%"``.
        max_t: The most T gates, in their place; the change is then made least.
        observables: What is looked at, such as ``"Z0*Z1"``; Z of each qubit by default.
        states: The states that the circuit begins in, [rows, 2^n], or a ``.npz`` file with an array
            ``states``; |0...0> by default.
        method: How weights of few bits are rounded: ``auto`` (per layer, by measured output error),
            ``gptq``, ``gptaq``, ``gpfq``, ``rounding``; as the target's pipeline does by default.
        evaluation: A text that source and artifact are judged on: perplexity and divergence of a
            decoder, likeness of embeddings, see :mod:`qcomp.feeds.texts`; arrays (``.npz``) are
            taken as ``labels``.
        tokenizer: Its ``tokenizer.json``; by default the one beside the source.
        tokens: For weights of few bits, what the graph is for: ``decode`` (one row at a time),
            ``prefill`` (many), ``both``; each layer gets the kernel that is faster then.
        seed: Seed of everything random; the same seed gives the same bytes.
        effort: ``fast``, ``default`` or ``max``.
        pipeline: A pipeline's text for the graph in place of the target's (for a circuit alone, for
            the circuit).
        exclude: Patterns of operators that are not quantized: a name, a glob, ``op:TYPE``, or
            ``sub:PREFIX`` for a subgraph, see :mod:`qcomp.node_rules`.
        include: Patterns of the only operators that may be quantized.
        override: ``PATTERN{bits=4,method=mse,scheme=static}``: options of single operators.
        lower: ``NODE=METHOD``: layers that become circuits, see
            :mod:`qcomp.passes.lower.layers.lower_layer`.
        verify_each: Whether every pass's promise is checked.
        jobs: Processes of this machine that round layers; the bytes are the same for any number.
        scheduler: Address of a Dask scheduler whose workers round them instead.
        cache: Folder of finished layers, from which a compile that was killed goes on; of models
            above 256 MiB it is ``OUT.layers`` until the compile has ended well.
        progress: Where long work shows how far it is.
        observer: Called after each pass.
        options: Options of the frontend.

    Returns:
        The artifact, callable.

    Raises:
        UsageError: If an argument is wrong.
        SourceError: If the source cannot be read.
        TargetError: If the target cannot run what the program needs.
        PassError: If a pass fails.
    """
    from qcomp.compilation import Compilation

    options = with_examples(options, example_inputs)
    graph, circuit = choose_targets(
        target,
        device=device,
        coupling=coupling,
        initial_layout=initial_layout,
        mapping=mapping,
        fractional=fractional,
    )
    start = time.process_time()
    program = read(source, **options)
    if program is source or program.model is source:  # what the caller holds is not changed
        program = program.copy()
    context = Context(seed=seed, verify_each=verify_each)
    if progress is not None:
        context.progress = progress
    pipeline, lowered = lowered_first(program, pipeline, context, observer)
    if not lower:
        _match_targets(program, graph, circuit)
    limits = AngleLimits.of(max_error, max_observable_error, max_t, observables, states)
    if limits is not None:
        if circuit is None:
            raise UsageError("the source has no circuit whose rotations could be approximated")
        context.put(limits)
    take_limits(context, graph, max_bytes, max_latency_ratio, latencies)
    job = Compilation(program, graph, circuit, context, lowered)
    job.take_rules(exclude, include, override)
    if evaluation is not None and Path(evaluation).suffix in (".npz", ".npy") and labels is None:
        evaluation, labels = None, evaluation
    job.take_data(calibration, labels, preprocess, pipeline)
    job.take_text(evaluation, tokenizer)
    job.take_figure(metric, higher_is_better, max_drop)
    if lower:
        lower_layers(job, lower, observer)
        _match_targets(program, graph, circuit)
    if method is not None:
        pipeline = with_method(pipeline, method, graph, effort)
    if tokens is not None:
        pipeline = expecting(pipeline, tokens, graph, effort)
    owner = None
    if out is None:
        owner = tempfile.TemporaryDirectory(prefix="qcomp-")
        out = Path(owner.name) / "artifact"
    work = layer_work(
        context, program.model, Path(out), jobs=jobs, scheduler=scheduler, cache=cache
    )
    with work, job.telling_faults():
        job.run_pipelines(effort, pipeline, observer)
        with atomic_folder(out, marker=MANIFEST) as folder:
            job.write(folder)
            report = job.report(Artifact(folder, check=False), time.process_time() - start)
            (folder / REPORT).write_text(report.to_json(), encoding="utf-8")
            (folder / "report.html").write_text(report.to_html(), encoding="utf-8")
    return Artifact(out, check=False).owned_by(owner)


def _match_targets(program: Program, graph: Target | None, circuit: Target | None) -> None:
    """Check that every part of the program has a machine, and every machine a part that fits."""
    text = "+".join(target.name for target in (graph, circuit) if target)
    has_graph = not program.is_circuit
    if program.circuits and circuit is None:
        raise TargetError(
            f"the source has circuits, '{text}' names no quantum machine",
            hint=f"join one: -t {text}+ibm-heron" if has_graph else "try -t ibm-heron",
        )
    if has_graph and graph is None:
        raise TargetError(
            f"the source has a classical graph, '{text}' names no classical machine",
            hint=f"try -t cpu-int8+{text}" if program.circuits else "try -t cpu-int8",
        )
    if circuit is not None and not program.circuits:
        raise TargetError(
            f"the source has no circuit for '{circuit.name}'",
            hint=f"try -t {graph.name}" if graph else "try -t cpu-int8",
        )
    if graph is not None and not has_graph:
        raise TargetError(
            f"the source has no classical graph for '{graph.name}'",
            hint=f"try -t {circuit.name}" if circuit else "try -t portable",
        )
    if circuit is not None:
        check_fit(circuit, program.circuits.items())


def verify(first: object, second: object, *, seed: int = 0) -> Verdict:
    """Say whether two circuits, graphs or programs are the same, and how that is known.

    Args:
        first: Anything :func:`read` takes.
        second: The same.
        seed: Seed of the random inputs that are tried.

    Returns:
        The verdict: equal, not equal, or not decided; the method; the error seen.

    Raises:
        UsageError: If one is a circuit and the other a graph.
    """
    from qcomp.equivalence import check

    a, b = (lowered_copy(read(source), Context(seed=seed)) for source in (first, second))
    if a.is_circuit != b.is_circuit:
        raise UsageError("a circuit cannot be compared with a classical graph")
    if a.is_circuit:
        return check(a.only_circuit, b.only_circuit, seed=seed)
    return check(a, b, seed=seed)


def judge(
    candidate: object,
    reference: object,
    *,
    observables: Sequence[Observable | str] = (),
    cost: CostModel | str | None = None,
    seed: int = 0,
) -> Judgement:
    """Judge a circuit against a reference in layers, with a score in [0, 1].

    The layers are parse, type, distribution, expectation, equivalence and optimality, see
    :mod:`qcomp.equivalence.layered`. A candidate that cannot be read is judged, not refused.

    Args:
        candidate: The circuit to judge: OpenQASM as text or in a file, or anything :func:`read`
            takes.
        reference: What it should do, the same.
        observables: Whose expectation values are compared, such as ``"Z0*Z1"``; X, Y and Z of each
            qubit by default.
        cost: What makes one of two equal circuits the better one, such as ``"two_qubit"``.
        seed: Seed of everything random.

    Raises:
        SourceError: If the reference cannot be read, or a file is missing.
        UsageError: If one of the two has a classical graph, or an observable or cost is wrong.
    """
    from qcomp.cost import CostModel
    from qcomp.equivalence.layered import DEFAULT_COST, judge_circuits, unreadable

    expected = single_circuit(read(reference))
    if isinstance(cost, str):
        cost = CostModel.parse(cost)
    if isinstance(candidate, Path) and not candidate.exists():
        read(candidate)
    try:
        program = read(candidate)
    except QcompError as reason:
        return unreadable(reason)
    if not program.is_circuit:
        raise UsageError("a circuit cannot be compared with a classical graph")
    return judge_circuits(
        program.only_circuit,
        expected,
        observables=observables,
        cost=cost or DEFAULT_COST,
        seed=seed,
    )


def single_circuit(program: Program) -> Circuit:
    """Return the circuit of a program that is one circuit, or an array that becomes one.

    Raises:
        UsageError: If it has a classical graph.
    """
    program = lowered_copy(program, Context())
    if not program.is_circuit:
        raise UsageError(
            "the source has a classical graph, a circuit is needed here",
            hint="use 'qcomp compile' for models",
        )
    return program.only_circuit
