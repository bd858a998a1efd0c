"""The PyTorch frontend: a module with example inputs, or an ``ExportedProgram``, to a Program."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qcomp import registry
from qcomp.errors import QcompError, SourceError, UsageError
from qcomp.frontends.hybrid_layers import captured_layers
from qcomp.frontends.torch_archive import load_exported_program
from qcomp.ir.program import OPSET, Comparison, Program, is_circuit_node

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.export import ExportedProgram

__all__ = ["TorchFrontend"]

_SUFFIXES = frozenset({".pt2", ".pt", ".pth"})
_MODULE = ("torch.nn.modules.module", "Module")
_EXPORTED = ("torch.export.exported_program", "ExportedProgram")
_BATCH = "batch"
_MANY = 8
"""Uses of one circuit from which on the user is told of loops."""


class TorchFrontend:
    """Reads PyTorch models through ``torch.onnx.export(dynamo=True)``.

    The first axis that all tensor inputs share becomes the dynamic axis ``batch``. Quantum layers
    become Circuit nodes. Weights stay initializers under their names in the module.
    """

    name = "torch"

    def accepts(self, source: object) -> bool:
        """Tell whether ``source`` is a torch model; torch is not imported.

        Args:
            source: Anything a user may hand to the compiler.
        """
        if isinstance(source, (str, os.PathLike)):
            return Path(source).suffix.lower() in _SUFFIXES
        kinds = _kinds(source)
        return _MODULE in kinds or _EXPORTED in kinds

    def read(
        self,
        source: object,
        *,
        example_inputs: object = None,
        dynamic_batch: bool = True,
        dynamic_shapes: object = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        optimize: bool = True,
    ) -> Program:
        """Read a model.

        Args:
            source: An ``nn.Module``, an ``ExportedProgram``, or the path of a ``.pt2`` file. A
                module is exported in evaluation mode and left as it was.
            example_inputs: Of a module: a tensor, a tuple of the positional arguments, or a
                mapping of the keyword arguments.
            dynamic_batch: Make the first axis of the inputs dynamic. Where the model fixes its
                batch, the axis is fixed too, and the program's notes say so.
            dynamic_shapes: Instead, what ``torch.export.export`` takes under this name.
            input_names: Names of the graph's inputs; those of ``forward``'s arguments by default.
            output_names: Names of the graph's outputs.
            optimize: Let the exporter fold constants and fuse normalisations.

        Returns:
            The program.

        Raises:
            SourceError: If the model cannot be exported; unsupported operators are all named.
            UsageError: If a module comes without example inputs.
        """
        notes: list[str] = []
        comparisons: list[Comparison] = []
        where = str(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__
        if isinstance(source, (str, os.PathLike)):
            program = load_exported_program(source)
        elif _EXPORTED in _kinds(source):
            program = cast("ExportedProgram", source)
        elif self.accepts(source):
            program = _export_module(
                source, example_inputs, dynamic_batch, dynamic_shapes, where, notes, comparisons
            )
        else:
            raise SourceError(f"a {type(source).__name__} is not a PyTorch model")
        _drop_leftovers(program)
        model = _to_onnx(program, input_names, output_names, optimize, where)
        _own_weights(model, copied=not isinstance(source, (str, os.PathLike)))
        _drop_traces(model)
        _name_batch_axis(model)
        _tell_circuits_apart(model)
        notes += _unrolled(model)
        result = registry.load("frontends", "onnx")().read(model)
        if not isinstance(result, Program):
            raise TypeError("the ONNX frontend must return a Program")
        result.notes += notes
        result.comparisons += comparisons
        result.source = where
        return result


def _kinds(source: object) -> set[tuple[str, str]]:
    """Return (module, name) of a value's classes, which tells torch's own without importing it."""
    return {(kind.__module__, kind.__qualname__) for kind in type(source).__mro__}


def _arguments(example_inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return (positional, keyword) arguments for the module."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def _export_module(
    module: Any,  # noqa: ANN401  an nn.Module, torch is not imported for its type
    example_inputs: object,
    dynamic_batch: bool,
    dynamic_shapes: object,
    where: str,
    notes: list[str],
    comparisons: list[Comparison],
) -> ExportedProgram:
    """Return the exported program of a module."""
    import torch

    if example_inputs is None:
        raise UsageError(
            "a torch module needs example inputs",
            where=where,
            hint="qcomp.read(module, example_inputs=torch.zeros(2, 64)), or save an "
            "ExportedProgram by torch.export.save",
        )
    args, kwargs = _arguments(example_inputs)
    shapes = dynamic_shapes
    if shapes is None and dynamic_batch:
        args, kwargs, shapes = _batched(torch, args, kwargs)
    with (
        _evaluating(module),
        _quiet(),
        captured_layers(module, args, kwargs, where, comparisons) as module,
    ):
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch raises nearly anything for a model it cannot trace
            if shapes is None or dynamic_shapes is not None:
                raise _export_error(error, where) from error
            reason = _first_line(error)
        try:
            program = torch.export.export(module, args, kwargs, strict=False)
        except Exception as error:
            raise _export_error(error, where) from error
    notes.append(f"the batch axis is fixed to that of the example inputs: {reason}")
    return program


def _batched(
    torch: Any,  # noqa: ANN401  the module
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Return the arguments with at least 2 rows, and the shapes that make the batch dynamic.

    ``torch.export`` takes an axis of size 1 as fixed, so one row is given twice.
    """
    tensors = [
        value
        for value in (*args, *kwargs.values())
        if isinstance(value, torch.Tensor) and value.dim()
    ]
    if not tensors:
        return args, kwargs, None
    rows = tensors[0].shape[0]

    def shared(value: object) -> bool:
        return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == rows

    def widen(value: Any) -> Any:  # noqa: ANN401
        return torch.cat([value, value]) if shared(value) and rows == 1 else value

    axis = {0: torch.export.Dim(_BATCH)}
    positional = tuple(axis if shared(value) else None for value in args)
    named = {name: axis if shared(value) else None for name, value in kwargs.items()}
    shapes = positional if not kwargs else named
    return tuple(map(widen, args)), {k: widen(v) for k, v in kwargs.items()}, shapes


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:  # noqa: ANN401  an nn.Module
    """Put a module into evaluation mode and every part of it back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's progress and deprecation messages off the user's screen."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _export_error(error: Exception, where: str) -> QcompError:
    cause = _root(error)
    if isinstance(cause, QcompError):
        return cause
    return SourceError(
        "torch cannot export the model",
        where=where,
        why=_first_line(cause),
        hint="a graph has no control flow on tensor values: use torch.where or torch.cond",
    )


def _drop_leftovers(program: ExportedProgram) -> None:
    """Drop tensors of loop bodies that tracing met and no operator uses."""
    import torch

    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
        for name in [n for n in vars(module).get("_buffers", {}) if n not in used]:
            if name.startswith("_tensor_constant"):
                delattr(module, name)


def _to_onnx(
    program: ExportedProgram,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    optimize: bool,
    where: str,
) -> ir.Model:
    """Return the ONNX graph of an exported program."""
    import torch

    try:
        table = registry.load("services", "torch-translations")()
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reading a torch model needs the package '{error.name}', which is not installed",
            hint="pip install 'qcomp[torch]'",
        ) from error
    try:
        # Gradients of a loop's body keep numbers of rows, which a loop cannot hand on.
        with _quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=table,
                input_names=None if input_names is None else list(input_names),
                output_names=None if output_names is None else list(output_names),
                opset_version=OPSET,
                optimize=optimize,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps nearly anything
        raise _unsupported(program, table, error, where) from error
    if exported is None:
        raise SourceError("torch exported nothing", where=where)
    return exported.model


def _unsupported(
    program: ExportedProgram, table: Mapping[Any, Any], error: Exception, where: str
) -> SourceError:
    """Return the error that lists every operator without a translation."""
    try:
        missing = _untranslated(program, table)
    except Exception:  # private parts of torch, which may move: the exporter's own words remain
        missing = Counter()
    if not missing:
        return SourceError(
            "torch cannot write the model as ONNX", where=where, why=_first_line(_root(error))
        )
    listed = ", ".join(f"{name} ({count}x)" for name, count in sorted(missing.items()))
    return SourceError(
        f"the model uses {len(missing)} operators that have no ONNX form: {listed}",
        where=where,
        hint="replace them, or export a part of the model",
    )


def _untranslated(program: ExportedProgram, table: Mapping[Any, Any]) -> Counter[str]:
    """Count the calls of operators that the exporter has no translation for."""
    import torch
    from torch.onnx._internal.exporter import _decomp, _registration

    with _quiet():
        known = _registration.ONNXRegistry.from_torchlib()
        for target in table:
            known.register_op(target, table[target])
        decompositions = _decomp.create_onnx_friendly_decomposition_table(
            _decomp.get_onnx_implemented_overloads(known)
        )
        lowered = program.run_decompositions(decompositions)
    missing: Counter[str] = Counter()
    for module in lowered.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for node in module.graph.nodes:
            if (
                node.op == "call_function"
                and isinstance(node.target, torch._ops.OpOverload)
                and not known.get_decomps(node.target)
            ):
                missing[str(node.target)] += 1
    return missing


def _own_weights(model: ir.Model, *, copied: bool) -> None:
    """Turn the exporter's tensors into plain ones.

    Args:
        model: The graph.
        copied: Copy the data, so that training the module further does not change the program.
    """
    import numpy as np
    import onnx_ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and not isinstance(tensor, onnx_ir.StringTensor):
            data = tensor.numpy()
            value.const_value = onnx_ir.Tensor(
                np.array(data) if copied else data, dtype=tensor.dtype, name=value.name
            )


def _drop_traces(model: ir.Model) -> None:
    """Drop the exporter's notes: stack traces, which hold paths of this machine, and the like."""
    graph = model.graph
    holders: list[Any] = [model, graph, *graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        holders += [node, *node.outputs]
        node.doc_string = None
    for holder in holders:
        for key in [key for key in holder.metadata_props if key.startswith("pkg.")]:
            del holder.metadata_props[key]


def _name_batch_axis(model: ir.Model) -> None:
    """Call the first axis that the inputs share ``batch`` wherever it appears alone."""
    import onnx_ir

    symbols = {
        value.shape[0].value
        for value in model.graph.inputs
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int)
    }
    if len(symbols) != 1 or symbols == {_BATCH} or None in symbols:
        return
    old = symbols.pop()
    values = [value for graph in model.graphs() for value in graph.inputs]
    for node in model.graph.all_nodes():
        values.extend(node.outputs)
    for value in values:
        if value.shape is not None:
            dims = [
                _BATCH if isinstance(dim, onnx_ir.SymbolicDim) and dim.value == old else dim
                for dim in value.shape
            ]
            value.shape = onnx_ir.Shape(dims)


def _tell_circuits_apart(model: ir.Model) -> None:
    """Give circuits of one name but another text names of their own."""
    import onnx_ir

    names: dict[str, str] = {}
    taken: set[str] = set()
    for node in model.graph.all_nodes():
        if not is_circuit_node(node):
            continue
        text = node.attributes["qasm"].as_string()
        if text not in names:
            name = node.attributes["circuit"].as_string() or "circuit"
            number = 2
            unique = name
            while unique in taken:
                unique = f"{name}_{number}"
                number += 1
            taken.add(unique)
            names[text] = unique
        node.attributes["circuit"] = onnx_ir.AttrString("circuit", names[text])


def _unrolled(model: ir.Model) -> list[str]:
    """Return a note for each circuit that stands in the graph as often as an unrolled loop's."""
    nodes = (node for node in model.graph.all_nodes() if is_circuit_node(node))
    uses = Counter(node.attributes["circuit"].as_string() for node in nodes)
    return [
        f"the circuit '{name}' stands in the graph {count} times: a Python loop over time steps "
        "is unrolled, one by qcomp.nn.Recurrent or qcomp.nn.scan stays a loop"
        for name, count in uses.items()
        if count >= _MANY
    ]
