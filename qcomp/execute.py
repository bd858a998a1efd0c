"""The only door to ONNX Runtime: run a graph or a hybrid program, see what becomes of a graph.

Everything here is deterministic: one thread unless told otherwise, nodes in sequence, kernels
that sum in a fixed order.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import PassError, QcompError, UsageError, suggest
from qcomp.model_file import INLINE_LIMIT, model_bytes, to_bytes, write_model

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from qcomp.ir.circuit import Circuit
    from qcomp.ir.program import Program, Readout
    from qcomp.ir.stages import CircuitStage, LoopStage, Stage

__all__ = ["HybridSession", "Session", "circuit_parameters", "optimized"]

Array = NDArray[np.generic]


class Session:
    """A classical graph in ONNX Runtime, on the CPU.

    A model of more than 256 MiB is handed over as a file with external data, which the runtime
    maps; it lies in a temporary folder for as long as the session lives.

    Args:
        model: A graph in memory, a ``ModelProto``, or the path of an ONNX file.
        threads: Threads inside of one operator; results may depend on it.
        optimize: Whether the runtime may fuse and reorder; without it the graph runs as written.
        inline: Bytes of weights that are handed over in memory, in place of 256 MiB.

    Attributes:
        inputs: Names of the inputs that have to be given, in order.
        outputs: Names of the outputs, in order.

    Raises:
        PassError: When the runtime refuses the graph.
    """

    def __init__(
        self,
        model: ir.Model | onnx.ModelProto | str | Path,
        threads: int = 1,
        *,
        optimize: bool = True,
        inline: int | None = None,
    ) -> None:
        options = _options(threads, optimize)
        self._session = _open(self, model, options, inline)
        self._inputs = {item.name: item for item in self._session.get_inputs()}
        self._optional = {item.name for item in self._session.get_overridable_initializers()}
        self.inputs: tuple[str, ...] = tuple(self._inputs)
        self.outputs: tuple[str, ...] = tuple(i.name for i in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the graph once.

        Args:
            feeds: Input name -> array. A float64 array is cast where float32 is due.
            outputs: Names of the outputs to compute; all by default.

        Returns:
            Output name -> array (a list for a sequence, None for an empty optional).

        Raises:
            UsageError: When an input is missing, unknown, or of the wrong type or shape.
            PassError: When the runtime fails while it runs.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        for name in names:
            if name not in self.outputs:
                raise UsageError(f"there is no output '{name}'", hint=suggest(name, self.outputs))
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise UsageError(
                "input missing: " + ", ".join(f"'{name}'" for name in missing),
                hint="inputs: " + ", ".join(self.inputs),
            )
        given = {}
        for name, value in feeds.items():
            if name not in self._inputs and name not in self._optional:
                raise UsageError(f"there is no input '{name}'", hint=suggest(name, self.inputs))
            given[name] = self._cast(name, value)
        try:
            results = self._session.run(list(names), given)
        except Exception as error:  # the runtime's errors share no other base class
            raise _run_error(error) from error
        return dict(zip(names, results, strict=True))

    def _cast(self, name: str, value: Any) -> Any:  # arrays, lists of arrays, None
        wanted = _NUMPY_TYPES.get(self._inputs[name].type) if name in self._inputs else None
        if wanted is None or not isinstance(value, (np.ndarray, np.generic, float, int, list)):
            return value
        array = np.asarray(value)
        shape = self._inputs[name].shape
        # The runtime says [] both of a number and of what may have any rank.
        if shape and not _fits(array.shape, shape):
            taken = ", ".join("?" if dim is None else str(dim) for dim in shape)
            raise UsageError(
                f"input '{name}' has the shape {list(array.shape)}, but the model takes [{taken}]"
            )
        if array.dtype == wanted:
            return array
        if not np.can_cast(array.dtype, wanted, "same_kind"):
            raise UsageError(
                f"input '{name}' is {array.dtype}, but the model takes {np.dtype(wanted)}"
            )
        return array.astype(wanted)


def _fits(shape: Sequence[int], declared: Sequence[int | str | None]) -> bool:
    if len(shape) != len(declared):
        return False
    pairs = zip(shape, declared, strict=True)
    return all(dim == known for dim, known in pairs if isinstance(known, int))


class HybridSession:
    """A program whose classical stages run in ONNX Runtime and whose circuits are simulated.

    Args:
        program: Any program, also one without circuits.
        taps: Values of the main graph to return beside the outputs. They are computed in the same
            run; the runtime does not fuse over them.
        threads: Threads of the runtime.
        only_taps: Whether the program's own outputs are left out, and what only they wait for.
        inline: As for :class:`Session`.

    Attributes:
        inputs: Names of the inputs that have to be given, in order.
        outputs: Names of the program's outputs (not with ``only_taps``), then the taps.
        on_step: Called in each step of a loop with the loop's name, the number of the step, and
            the values that the step reads.
        on_circuit: Called in place of the simulator: circuit, readout, rows of parameters, shots
            and seed, as :func:`qcomp.simulate.run_readout` takes them.

    Raises:
        PassError: When a stage cannot be run.
        UsageError: When a tap is no value of the graph.
    """

    on_step: Callable[[str, int, Mapping[str, Any]], None] | None = None
    on_circuit: Callable[[Circuit, Readout, NDArray[np.float64], int | None, int], Any] | None = (
        None
    )

    def __init__(
        self,
        program: Program,
        *,
        taps: Sequence[str] = (),
        threads: int = 1,
        only_taps: bool = False,
        inline: int | None = None,
    ) -> None:
        from qcomp.ir.stages import cut_into_stages

        graph = program.model.graph
        self._circuits = dict(program.circuits)
        self._constants = {
            name: value.const_value
            for name, value in graph.initializers.items()
            if value.is_graph_output() or name in taps
        }
        self.inputs: tuple[str, ...] = tuple(
            value.name or "" for value in graph.inputs if not value.is_initializer()
        )
        named = [] if only_taps else [value.name or "" for value in graph.outputs]
        self.outputs: tuple[str, ...] = tuple(dict.fromkeys([*named, *taps]))
        stages = cut_into_stages(program, keep=taps, outputs=not only_taps)
        self._stages = _Stages(stages, threads, inline)

    def run(
        self,
        feeds: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        *,
        shots: int | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Run the program once.

        Args:
            feeds: Input name -> array.
            outputs: Names among ``self.outputs``; all by default.
            shots: Samples a circuit, in place of what its node says; 0 for exact values.
            seed: Seed of the samples.

        Returns:
            Output name -> array.

        Raises:
            UsageError: When an input is missing, unknown, or of the wrong type or shape.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        for name in names:
            if name not in self.outputs:
                raise UsageError(f"there is no output '{name}'", hint=suggest(name, self.outputs))
        self._check_names(feeds)
        values: dict[str, Any] = dict(feeds)
        self._run_stages(self._stages, values, shots, seed)
        for name in names:
            if name not in values:
                tensor = self._constants.get(name)
                if tensor is None:
                    raise PassError(f"no stage makes the output '{name}'")
                values[name] = tensor.numpy()
        return {name: values[name] for name in names}

    def stream(
        self,
        batches: Iterable[Mapping[str, Any]],
        outputs: Sequence[str] | None = None,
        *,
        shots: int | None = None,
        seed: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Run the program batch by batch; one batch and its results are in memory at a time.

        Args:
            batches: Feeds, each as :meth:`run` takes them.
            outputs: Names among ``self.outputs``; all by default.
            shots: Samples a circuit, in place of what its node says; 0 for exact values.
            seed: Seed of the samples of the first batch.

        Yields:
            Output name -> array, for each batch.
        """
        for index, feeds in enumerate(batches):
            yield self.run(feeds, outputs, shots=shots, seed=seed + 1000 * index)

    def _check_names(self, feeds: Mapping[str, Any]) -> None:
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise UsageError(
                "input missing: " + ", ".join(f"'{name}'" for name in missing),
                hint="inputs: " + ", ".join(self.inputs),
            )
        optional = {n for s in self._stages.items if isinstance(s, Session) for n in s._optional}
        for name in feeds:
            if name not in self.inputs and name not in optional:
                raise UsageError(f"there is no input '{name}'", hint=suggest(name, self.inputs))

    def _run_stages(
        self, stages: _Stages, values: dict[str, Any], shots: int | None, seed: int
    ) -> None:
        """Run stages in order; ``values`` gets what they make."""
        for index, stage in enumerate(stages.items):
            if isinstance(stage, Session):
                known = {*stage.inputs, *stage._optional}
                values |= stage.run({k: v for k, v in values.items() if k in known})
            elif isinstance(stage, _OpenLoop):
                values |= self._run_steps(stage, values, shots, seed + index)
            else:
                values[stage.output] = self._run_circuit(stage, values, shots, seed + index)

    def _run_steps(
        self, loop: _OpenLoop, values: Mapping[str, Any], shots: int | None, seed: int
    ) -> dict[str, Any]:
        from qcomp.ir.loops import run_loop

        given = {**loop.stage.constants, **values}
        around = {name: given[name] for name in loop.stage.inputs}

        def step(number: int, feeds: dict[str, Any]) -> dict[str, Any]:
            inside = {**around, **feeds}
            if self.on_step is not None:
                self.on_step(loop.stage.node, number, inside)
            self._run_stages(loop.stages, inside, shots, seed + 1_000_003 * (number + 1))
            return inside

        result = run_loop(loop.stage.form, given, step)
        assert result is not None
        return result

    def _run_circuit(
        self, stage: CircuitStage, values: Mapping[str, Any], shots: int | None, seed: int
    ) -> Array:
        from qcomp.simulate import run_readout

        circuit = self._circuits[stage.circuit]
        given = [values.get(name, stage.constants.get(name)) for name in stage.inputs]
        rows, lead = circuit_parameters(given, circuit, stage.node)
        if self.on_circuit is not None:
            result = np.asarray(self.on_circuit(circuit, stage.readout, rows, shots, seed))
        else:
            result = np.asarray(run_readout(circuit, stage.readout, rows, shots=shots, seed=seed))
        shaped = result.reshape(*lead, *result.shape[1:])
        return shaped if stage.dtype is None else shaped.astype(stage.dtype, copy=False)


class _Stages:
    """Stages ready to run: classical ones in the runtime, those inside of loops too."""

    def __init__(self, stages: Sequence[Stage], threads: int, inline: int | None) -> None:
        from qcomp.ir.stages import ClassicalStage, LoopStage

        self.items: list[Session | CircuitStage | _OpenLoop] = []
        for stage in stages:
            if isinstance(stage, ClassicalStage):
                self.items.append(Session(stage.model, threads, inline=inline))
            elif isinstance(stage, LoopStage):
                self.items.append(_OpenLoop(stage, _Stages(stage.stages, threads, inline)))
            else:
                self.items.append(stage)


@dataclass(frozen=True, slots=True)
class _OpenLoop:
    stage: LoopStage
    stages: _Stages


def circuit_parameters(
    given: Sequence[Any], circuit: Circuit, node: str
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Join a Circuit node's inputs to rows of parameters.

    Args:
        given: The input arrays in order; leading axes broadcast, the last axes are joined.
        circuit: The circuit whose parameters they are.
        node: The node's name, for messages.

    Returns:
        (float64[B, P], the leading axes, whose product is B).

    Raises:
        UsageError: When the arrays do not fit one batch or the circuit's parameters.
    """
    parts = [np.atleast_1d(np.asarray(array, np.float64)) for array in given]
    try:
        lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
    except ValueError as error:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise UsageError(
            f"the inputs of circuit '{circuit.name}' do not fit one batch: {shapes}",
            where=f"node '{node}'",
        ) from error
    wide = [np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts]
    params = np.concatenate(wide, axis=-1) if wide else np.zeros((0,))
    if params.shape[-1] != len(circuit.params):
        raise UsageError(
            f"circuit '{circuit.name}' has {len(circuit.params)} parameters, but its inputs "
            f"have {params.shape[-1]} values together",
            where=f"node '{node}'",
        )
    return params.reshape(int(np.prod(lead, dtype=np.int64)), params.shape[-1]), lead


def optimized(model: ir.Model, *, threads: int = 1) -> ir.Model:
    """Return what ONNX Runtime makes of a model for this machine, all optimisations on.

    Args:
        model: A classical graph.
        threads: Threads of the runtime.

    Returns:
        The optimised graph, with operators of the runtime's own domains.

    Raises:
        PassError: When the runtime refuses the graph.
    """
    import onnx_ir as ir

    with tempfile.TemporaryDirectory(prefix="qcomp-") as folder:
        path = Path(folder) / "optimized.onnx"
        options = _options(threads, optimize=True)
        options.optimized_model_filepath = str(path)
        if model_bytes(model) > INLINE_LIMIT:
            key = "session.optimized_model_external_initializers"
            options.add_session_config_entry(f"{key}_file_name", "optimized.data")
            options.add_session_config_entry(f"{key}_min_size_in_bytes", "1024")
        holder = _Holder()
        _open(holder, model, options)
        result = ir.load(path)
        return ir.external_data.load_to_model(result)


class _Holder:
    """Something for a temporary folder to live as long as."""


_NUMPY_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


def _options(threads: int, optimize: bool) -> Any:  # onnxruntime has no types
    import onnxruntime as ort

    if threads < 1:
        raise UsageError(f"{threads} threads cannot run anything")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    # What goes wrong comes as an exception; the runtime's own log would only repeat it.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    return options


def _open(
    owner: object,
    model: ir.Model | onnx.ModelProto | str | Path,
    options: Any,
    inline: int | None = None,
) -> Any:  # onnxruntime has no types
    import onnx_ir as ir
    import onnxruntime as ort

    source: str | bytes
    if isinstance(model, (str, Path)):
        source = str(model)
    elif isinstance(model, ir.Model):
        if model_bytes(model) > (INLINE_LIMIT if inline is None else inline):
            folder = tempfile.mkdtemp(prefix="qcomp-")
            weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
            source = str(write_model(model, Path(folder) / "model.onnx")[0])
        else:
            source = to_bytes(model)
    try:
        if not isinstance(model, (str, Path, ir.Model)):
            source = model.SerializeToString()
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no other base class
        raise PassError("ONNX Runtime refuses the graph", why=_reason(error)) from error


def _run_error(error: Exception) -> QcompError:
    why = _reason(error)
    if "INVALID_ARGUMENT" in str(error) or isinstance(error, (TypeError, ValueError)):
        return UsageError("an input does not fit the graph", why=why)
    return PassError("ONNX Runtime failed while it ran the graph", why=why)


def _reason(error: Exception) -> str:
    """Return what the runtime says, on one line and without its own error codes."""
    text = " ".join(str(error).split())
    return re.sub(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(Fatal error: )?", "", text)[:1000]
