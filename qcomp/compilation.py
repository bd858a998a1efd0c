"""One compile in progress: data, pipelines, files, checks, report. The driver steers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.accuracy_bound import run_within
from qcomp.angle_limits import circuit_pipeline
from qcomp.artifact_format import graph_files, sha256
from qcomp.binding import BoundCircuits
from qcomp.bits_bound import run_in_bits
from qcomp.bundling import slot_checks, write_bundle
from qcomp.circuit_checks import check_circuit
from qcomp.companions import copy_companions
from qcomp.compared import compared
from qcomp.errors import PassError, SourceError, UsageError
from qcomp.judging import judge_labels, judge_text, other_inputs
from qcomp.largest_drop import Drop, KeptLayers
from qcomp.latency_limit import latency_checks
from qcomp.loop_bodies import run_passes
from qcomp.model_file import INLINE_LIMIT
from qcomp.node_rules import name_nodes
from qcomp.passmanager import CircuitPass, Context, Guarantee, Pass, PassRecord, Pipeline
from qcomp.quantization import (
    ChosenWeights,
    FeedbackErrors,
    FusionReport,
    GeneratedData,
    NodeRules,
    QuantizationError,
    QuantizationRecord,
    TensorStatistics,
)
from qcomp.registry import load as load_part
from qcomp.report import collect
from qcomp.report.data import AccuracyLine, CheckLine, Report, Sizes, SourceLine, TensorLine
from qcomp.report.rounding import not_stored, rounding_check
from qcomp.run_plan import plan_lines

if TYPE_CHECKING:
    from qcomp.execute import HybridSession
    from qcomp.feeds import Batches, Evaluation, Scorer
    from qcomp.feeds.texts import TextEvaluation
    from qcomp.ir.program import Program
    from qcomp.runtime.artifact import Artifact
    from qcomp.target import Target

__all__ = ["Compilation"]

Observer = Callable[[PassRecord, "Program"], None]

_GENERATE = "generate-data"
"""The pass that makes up calibration data."""

_SCHEME_PASSES = {
    "static": ("quantize-static",),
    "dynamic": ("quantize-dynamic", "quantize-tokens", "quantize-lstm"),
    "weights": ("quantize-weights", "quantize-embeddings", "quantize-residual", "store-weights"),
    "float": ("",),
}
"""Scheme -> the passes that quantize so."""


class Compilation:
    """What one call of :func:`qcomp.driver.compile` works on.

    Args:
        program: The program as read; changed by the pipelines.
        graph: The classical machine, if the program has a classical graph.
        circuit: The quantum machine, if it has circuits.
        context: Seed, progress, checked mode.
        records: What passes did before.
    """

    def __init__(
        self,
        program: Program,
        graph: Target | None,
        circuit: Target | None,
        context: Context,
        records: Sequence[PassRecord] = (),
    ) -> None:
        self.program = program
        if graph is not None:  # so that an operator has one name, whatever passes make of it
            name_nodes(program.model.graph)
        self.source = program.copy()
        self.graph = graph
        self.circuit = circuit
        self.context = context
        self.records = list(records)
        self.labels: Evaluation | None = None
        self.text: TextEvaluation | None = None
        self.metric: object = None
        self.higher_is_better: bool | None = None
        self.drop: Drop | None = None
        self._batches: Batches | None = None
        self._generates = False
        self._pipelines: dict[str, str] = {}
        self._effort = "default"

    # --- data ------------------------------------------------------------------------------

    def take_data(
        self, calibration: object, labels: object, preprocess: object, pipeline: str | None = None
    ) -> None:
        """Take what the user gave to calibrate and to judge.

        Args:
            calibration: Data, or the word ``generated``.
            labels: Labels of the data, or a file of its own.
            preprocess: How raw data becomes inputs.
            pipeline: A text in place of the target's; one that generates data needs none.

        Raises:
            UsageError: If the data does not fit the model, or the target needs data that is not
                there.
        """
        self._generates = _is_generated(calibration)
        if self._generates:
            calibration = None
            if self.graph is None:
                raise UsageError(
                    "the source has no classical graph that data could be generated for",
                    hint="leave --calib out",
                )
        generates = self._generates or _GENERATE in (pipeline or "")
        needs = self.graph is not None and "calibration" in self.graph.requires
        if calibration is None and needs and not generates and self.graph is not None:
            raise UsageError(
                f"the target '{self.graph.name}' needs calibration data",
                hint="give --calib data.npz with arrays named as the model's inputs "
                "(some hundred samples), --calib generated where there is none, or take "
                "cpu-dynamic-int8, which needs none",
            )
        if calibration is None and labels is None:
            return
        from qcomp.feeds import calibration_batches, inputs_of, labels_for

        inputs = inputs_of(self.program.model)
        if calibration is not None:
            self._batches = calibration_batches(calibration, inputs, preprocess=preprocess)
            self._batches.check()
            self.context.calibration = self._batches
            if self._batches.ignored:
                names = ", ".join(self._batches.ignored)
                self.context.warn(f"{self._batches.where}: no input takes the arrays {names}")
        if labels is not None:
            self.labels = labels_for(
                labels, inputs, calibration=self._batches, preprocess=preprocess
            )

    def take_text(self, text: str | Path | None, tokenizer: str | Path | None) -> None:
        """Take the text that both are judged on, see :func:`qcomp.feeds.texts.text_evaluation`."""
        if text is None:
            if tokenizer is not None:
                raise UsageError("a tokenizer is for a text", hint="give --eval text.txt, too")
            return
        if self.graph is None:
            raise UsageError("the source has no classical graph that could read a text")
        from qcomp.feeds.texts import text_evaluation

        self.text = text_evaluation(text, tokenizer, self.program.model, self.program.source)

    def take_figure(self, metric: object, higher: bool | None, max_drop: object) -> None:
        """Take how the program is judged, and how much worse it may get. Data comes first.

        Args:
            metric: As for :class:`qcomp.feeds.Scorer`.
            higher: Whether more of the user's own metric is better.
            max_drop: As for :meth:`qcomp.accuracy_bound.Drop.parse`; None for no bound.

        Raises:
            UsageError: If there is no such metric, or nothing to measure it on.
        """
        if metric is None and max_drop is None:
            return
        if self.labels is None:
            raise UsageError(
                f"a {'metric' if max_drop is None else 'largest drop'} needs labels",
                hint="give --labels labels.npz, with an array named 'labels' or 'y'",
            )
        self.metric, self.higher_is_better = metric, higher
        self.scorer()
        if max_drop is not None:
            if self.graph is None:
                raise UsageError("a largest drop is for quantized graphs, the source has none")
            self.context.put(drop := Drop.parse(max_drop))
            self.drop = drop

    def take_rules(
        self, exclude: Sequence[str], include: Sequence[str], override: Sequence[str]
    ) -> None:
        """Take what the user asks of single operators, by the names that the source has.

        Raises:
            UsageError: If a pattern matches nothing, an override cannot be read, or no pass can do
                what it asks for.
        """
        rules = NodeRules.parse(exclude, include, override)
        if not rules:
            return
        if self.graph is None:
            raise UsageError(
                "the source has no classical graph whose operators patterns could match",
                hint="leave --exclude, --include and --override out",
            )
        nodes = list(self.program.model.graph.all_nodes())
        try:
            rules.check(nodes)
        except UsageError:  # the report also names what functions and fused operators are made of
            apart = self.program.copy()
            Pipeline.parse("canonicalise,inline-functions,take-apart").run(apart, Context())
            rules.check([*nodes, *apart.model.graph.all_nodes()])
        self.context.put(rules)

    # --- passes ----------------------------------------------------------------------------

    def run_pipelines(self, effort: str, pipeline: str | None, observer: Observer | None) -> None:
        """Run the circuits' pipeline, then the graph's.

        Args:
            effort: Which of the targets' pipelines.
            pipeline: A text in place of the graph's pipeline, or of the circuit's where there is
                no graph.
            observer: Called after each pass.
        """
        self._effort = effort
        for target in filter(None, (self.circuit, self.graph)):
            own = target is self.graph or self.graph is None
            text = self.pipeline_text(target, effort, pipeline if own else None)
            self._pipelines[target.name] = text
            if target is self.graph:
                self._check_schemes(text)
            self.context.target = target
            if target is self.graph and run_in_bits(self, text, observer):
                continue
            if target is self.graph and self.drop is not None:
                run_within(self, self.drop, text, observer)
            else:
                self.records += run_passes(self.program, text, self.context, observer)
        self._check_overrides()

    def pipeline_text(self, target: Target, effort: str, pipeline: str | None) -> str:
        """Return the text of a target's pipeline, data made up at its head where that is asked."""
        text = circuit_pipeline(self.context, target, effort, pipeline, self.program)
        if target is self.graph and self._generates and _GENERATE not in text:
            return f"{_GENERATE},{text.lstrip()}"
        return text

    def _check_schemes(self, text: str) -> None:
        """Check that the pipeline has a pass for each scheme that the user asks for."""
        rules = self.context.get(NodeRules)
        for override in () if rules is None else rules.override:
            scheme = override.scheme
            if scheme is None or any(name in text for name in _SCHEME_PASSES[scheme]):
                continue
            raise UsageError(
                f"'{override.pattern}' is to have the scheme '{scheme}', but the pipeline has no "
                f"'quantize-{scheme}'",
                hint=f"give a pipeline that has it: -p '{text.strip()},quantize-{scheme}'",
            )

    def _check_overrides(self) -> None:
        """Say which overrides changed nothing, since what they match was not quantized so."""
        rules = self.context.get(NodeRules) or NodeRules()
        record = self.context.get(QuantizationRecord) or QuantizationRecord()
        for override in rules.override:
            pattern = override.pattern
            matched = [x for x in record.layers if rules.matches(pattern, x.node, x.op_type)]
            if override.scheme not in (None, *(layer.scheme for layer in matched)) or not matched:
                if override.scheme != "float":
                    self.context.warn(
                        f"the override of '{override.pattern}' changed nothing: no operator that "
                        "it matches was quantized so (the list of operators in float says why)"
                    )

    # --- files -----------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """Write the bundle into an empty folder."""
        write_bundle(self.program, self.graph, self.circuit, folder, self.context)
        if self.graph is not None:
            copy_companions(self.source.source, folder)

    # --- checks and report -------------------------------------------------------------------

    def report(self, artifact: Artifact, seconds: float) -> Report:
        """Run the artifact that was written, compare it with the source, and say what was done."""
        circuits = self._circuit_sections()
        checks = [section.check for section in circuits if section.check is not None]
        checks += collect.comparison_lines(self.source.comparisons)
        checks += slot_checks(self.context) + self._compare(artifact)
        accuracy = self._accuracy(artifact, checks)
        rounding = self.context.get(FeedbackErrors)
        record = self.context.get(QuantizationRecord)
        checks += rounding_check(rounding, record) + latency_checks(self, artifact.run)
        unstored = not_stored(self.context.get(ChosenWeights), record)
        source = self.source.source
        path = Path(source) if source and len(source) < 4096 else None
        size = path.stat().st_size if path is not None and path.is_file() else None
        name = path.name if size is not None and path is not None else source or "in memory"
        files = collect.file_lines(artifact.path)
        return Report(
            title=f"qcomp: {name}",
            source=SourceLine(
                name, bytes=size, sha256="" if size is None or path is None else sha256(path)
            ),
            targets=tuple(
                collect.target_line(target, self._effort, self._pipelines[target.name])
                for target in (self.graph, self.circuit)
                if target is not None
            ),
            seed=self.context.seed,
            cpu_seconds=seconds,
            versions=collect.versions(),
            sizes=Sizes(
                size,
                sum(f.bytes for f in files if ".onnx" in f.name) or None,
                _weight_bytes(self.source) or None,
                _weight_bytes(self.program) or None,
                files,
            ),
            passes=collect.pass_lines(self.records),
            quantization=collect.quantization_section(
                record,
                self.context.get(QuantizationError),
                self.context.get(FusionReport),
                rules=self.context.get(NodeRules),
                rounding=rounding,
                tensors=self._tensors(artifact),
            ),
            circuits=tuple(circuits),
            accuracy=accuracy,
            bound=collect.bound_line(self.context.get(KeptLayers)),
            checks=tuple(checks),
            budget=collect.budget_lines(self.context.ledger),
            runs=() if self.graph is None else plan_lines(artifact.manifest["stages"]),
            warnings=tuple(self.context.warnings + unstored)
            + tuple(self.source.notes)
            + tuple(n for c in self.source.circuits.values() for n in c.notes),
        )

    def _tensors(self, artifact: Artifact) -> tuple[TensorLine, ...]:
        """Read the tensors of the graphs that were written, where something was quantized."""
        record = self.context.get(QuantizationRecord)
        if record is None:
            return ()
        import onnx_ir as ir

        from qcomp.report.tensors import tensor_lines

        models = [ir.load(artifact.path / n) for n in graph_files(artifact.manifest["stages"])]
        names, statistics = self.source.model.graph.initializers, self.context.get(TensorStatistics)
        machine = None if self.graph is None else self.graph.integers
        return tensor_lines(models, record, statistics, names, machine)

    def _circuit_sections(self) -> list[Any]:
        bound = self.context.get(BoundCircuits) or BoundCircuits({})
        sections = []
        for name, after in self.program.circuits.items():
            before = bound.source_of(name, self.source.circuits)
            line = check_circuit(
                name,
                before,
                after,
                self.context,
                only_bits=any(kind.only_bits for kind in self._classes()),
                from_zero=any(kind.from_zero for kind in self._classes()),
                may_differ=self._may_differ(),
            )
            counts = before.stats().to_dict()
            sections.append(
                collect.circuit_section(name, after, before=counts, check=line, target=self.circuit)
            )
        return sections

    def _may_differ(self) -> bool:
        """Whether a pass that ran was allowed to change what circuits do, within the budget."""
        return any(
            issubclass(kind, CircuitPass) and kind.preserves is Guarantee.WITHIN
            for kind in self._classes()
        )

    def _classes(self) -> list[type[Pass]]:
        """Return the classes of the passes that ran."""
        return [load_part("passes", record.name.partition("{")[0]) for record in self.records]

    def _compare(self, artifact: Artifact) -> list[CheckLine]:
        """Compare the artifact's outputs with the source's on some batches of data."""
        what = "the artifact's outputs against the float source's"
        if self.graph is None:
            return []
        if self.context.calibration is None:
            return [CheckLine(what, "no data was given", "not checked")]
        from qcomp.quantization import SqnrSum

        if other := other_inputs(self.context, what, self.source):
            return other
        sums: dict[str, SqnrSum] = {}
        largest = 0.0
        rows = 0
        for count, expected, got in compared(
            self.source, self.source_session, artifact, self.context
        ):
            rows += count
            for name, value in expected.items():
                a, b = np.asarray(value), np.asarray(got[name])
                sums.setdefault(name, SqnrSum()).add(a, b)
                difference = np.subtract(a, b, dtype=np.float64)
                largest = max(largest, float(np.abs(difference).max(initial=0.0)))
        words = ", ".join(f"{name} {total.decibels:.1f} dB" for name, total in sums.items())
        which = "samples of the calibration data"
        if self.context.get(GeneratedData) is not None:
            which = "generated samples"
        how = f"{rows} {which}, exact simulation; SQNR {words}"
        return [CheckLine(what, how, "measured", largest, "largest difference")]

    @contextmanager
    def telling_faults(self) -> Iterator[None]:
        """Tell whether it is the source itself that ONNX Runtime cannot run.

        Raises:
            SourceError: If a pass or check failed in the runtime, and the source fails there, too.
        """
        try:
            yield
        except PassError as error:
            large = _weight_bytes(self.source) > INLINE_LIMIT  # it may not fit in memory
            if self.graph is None or large or not error.what.startswith("ONNX Runtime"):
                raise
            try:
                session = self.source_session()
                batches = () if self.context.calibration is None else self.context.calibration()
                feeds = next(iter(batches), None)
                if feeds is not None:
                    session.run(feeds, shots=0)
            except PassError as fault:
                raise SourceError(
                    "ONNX Runtime cannot run the model as it came",
                    where=self.source.source if len(self.source.source) < 4096 else "",
                    why=fault.why,
                    hint="make it run there first: onnxruntime.InferenceSession(model)",
                ) from error
            raise

    def source_session(self) -> HybridSession:
        """Run the source; in float32 where the runtime has no kernels of its types."""
        from qcomp.execute import HybridSession

        try:
            return HybridSession(self.source)
        except PassError:
            wide = self.source.copy()
            if not load_part("passes", "widen-floats")().run(wide, Context()):
                raise
            return HybridSession(wide)

    def scorer(self) -> Scorer:
        """Return a scorer of what the user measures."""
        from qcomp.feeds import Scorer

        return Scorer(self.metric, self.higher_is_better)  # type: ignore[arg-type]

    def _accuracy(self, artifact: Artifact, checks: list[CheckLine]) -> tuple[AccuracyLine, ...]:
        lines: list[AccuracyLine] = []
        judged = self.labels is not None or self.text is not None
        if judged and (other := other_inputs(self.context, "accuracy")):
            checks += other
            return ()
        if self.labels is not None:
            line, check = judge_labels(self.labels, self.scorer, self.source_session(), artifact)
            lines.append(line)
            checks.append(check)
            if self.labels.is_calibration:
                self.context.warn("the accuracy is on the calibration samples, not on unseen data")
        if self.text is not None:
            found, more = judge_text(self.text, self.source_session(), artifact)
            lines += found
            checks += more
        return tuple(lines)


def _is_generated(calibration: object) -> bool:
    """Whether data is to be made up: the word, unless a file or folder has that name."""
    return (
        isinstance(calibration, str | Path)
        and str(calibration) == "generated"
        and not Path(calibration).exists()
    )


def _weight_bytes(program: Program) -> int:
    values = program.model.graph.initializers.values()
    return sum(v.const_value.nbytes for v in values if v.const_value is not None)
