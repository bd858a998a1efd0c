"""PennyLane in a PyTorch module: ``qml.qnn.TorchLayer``, and QNodes that a ``forward`` calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pennylane as qml
import torch
from torch.utils import _pytree as pytree

from qcomp.errors import SourceError
from qcomp.frontends.capture_check import check_capture
from qcomp.frontends.hybrid_layers import twin
from qcomp.frontends.pennylane_capture import CapturedQNode
from qcomp.frontends.pennylane_circuit import name_of
from qcomp.ir.program import Comparison

__all__ = ["QNodeCalls", "capture_torch_layer"]


def capture_torch_layer(
    layer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> torch.nn.Module:
    """Return what takes the place of a ``qml.qnn.TorchLayer``: same call, same weights.

    It is a copy of the layer whose QNode is a :class:`CapturedQNode`; the layer's own ``forward``
    runs, and its ``Parameter`` objects are shared.

    Args:
        layer: The layer.
        args: Example positional arguments.
        kwargs: Example keyword arguments.

    Raises:
        SourceError: If the QNode cannot be captured.
    """
    recorded: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class _Stop(Exception):  # noqa: N818  leaves forward once the QNode's arguments are known
        pass

    def record(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        recorded.append((args, kwargs))
        raise _Stop

    for name, used in vars(layer)["qnode_weights"].items():
        if used is not layer._parameters.get(name):
            raise SourceError(
                f"the layer's weight '{name}' is not the one that its QNode is given",
                why="PennyLane reads layer.qnode_weights, which keeps the weight from before",
                hint=f"assign it to layer.qnode_weights['{name}'] too, or call one layer twice",
            )
    qnode = vars(layer)["qnode"]
    if isinstance(qnode, CapturedQNode):  # a twin that qcomp.nn.capture made
        qnode = qnode.qnode
    with contextlib.suppress(_Stop):
        _with_qnode(layer, record).forward(*args, **kwargs)
    if not recorded:
        raise SourceError(f"the layer {type(layer).__name__} does not call its QNode")
    captured = CapturedQNode(qnode, *recorded[0])
    replacement = _with_qnode(layer, captured)
    attributes = vars(replacement)
    if captured.gives_list and type(layer)._evaluate_qnode is qml.qnn.TorchLayer._evaluate_qnode:

        def evaluate(x: torch.Tensor) -> torch.Tensor:
            """Do what the layer's own method does without hstack, which has no good ONNX form."""
            weights = {name: w.to(x) for name, w in attributes["qnode_weights"].items()}
            return captured.joined({replacement.input_arg: x, **weights}).type(x.dtype)

        attributes["_evaluate_qnode"] = evaluate
        if type(layer).forward is qml.qnn.TorchLayer.forward:

            def forward(inputs: torch.Tensor) -> torch.Tensor:
                """Leave out the layer's reshape where the inputs have one batch axis or none."""
                if inputs.dim() <= 2:
                    return evaluate(inputs)
                result: torch.Tensor = type(layer).forward(replacement, inputs)
                return result

            attributes["forward"] = forward
    attributes["structure"] = captured.structure
    attributes["exact"] = captured.exact
    attributes["reference"] = _with_qnode(layer, captured.exact_qnode())
    return replacement


class _Weights(Mapping[str, Any]):
    """A layer's weights by name, read when they are asked for: an export puts others in."""

    def __init__(self, layer: torch.nn.Module, names: Sequence[str]) -> None:
        self._parameters, self._names = layer._parameters, tuple(names)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  a Parameter or what stands for it
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _with_qnode(layer: torch.nn.Module, qnode: Callable[..., Any]) -> torch.nn.Module:
    """Return a shallow copy of a layer around another QNode."""
    new = twin(layer)
    attributes = vars(new)
    attributes.pop("_evaluate_qnode", None)
    attributes["qnode"] = qnode
    attributes["qnode_weights"] = _Weights(new, list(vars(layer)["qnode_weights"]))
    return new


class QNodeCalls:
    """Captures the QNodes that a module's ``forward`` calls itself.

    Args:
        where: What messages call the module.
        comparisons: Gets one for each QNode: how it compared with PennyLane's simulator.
    """

    def __init__(self, where: str, comparisons: list[Comparison]) -> None:
        self.where = where
        self.comparisons = comparisons
        self.captured: dict[object, list[CapturedQNode]] = {}
        self.calls: list[tuple[CapturedQNode, tuple[tuple[Any, ...], dict[str, Any]]]] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Capture every QNode at its first call, and compare it at the end."""

        def answer(qnode: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            captured = self._known(qnode, args, kwargs)
            if captured is None:
                with torch.enable_grad():
                    captured = CapturedQNode(qnode, args, kwargs)
                self.captured.setdefault(_call_key(qnode, args, kwargs), []).append(captured)
                kept = pytree.tree_map(
                    lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v,
                    (args, kwargs),
                )
                self.calls.append((captured, kept))
            return captured.run(qnode, args, kwargs)

        with _calling(answer):
            yield
        for captured, call in self.calls:
            what = f"the QNode '{name_of(captured.qnode)}'"
            self.comparisons.append(
                check_capture(what, torch.nn.Module(), captured, _again(captured.qnode), [call])
            )

    @contextlib.contextmanager
    def exporting(self) -> Iterator[None]:
        """Let the captured QNodes answer."""

        def answer(qnode: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            captured = self._known(qnode, args, kwargs)
            if captured is None:
                raise SourceError(
                    f"the QNode '{name_of(qnode)}' was not called so with the example inputs",
                    where=self.where,
                )
            return captured.run(qnode, args, kwargs)

        with _calling(answer):
            yield

    def _known(
        self,
        qnode: Any,  # noqa: ANN401  a QNode
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> CapturedQNode | None:
        same_code = self.captured.get(_call_key(qnode, args, kwargs), [])
        return next((c for c in same_code if c.fits(qnode, args, kwargs)), None)


def _again(qnode: Any) -> Callable[..., CapturedQNode]:  # noqa: ANN401
    return lambda layer, args, kwargs: CapturedQNode(qnode, args, kwargs)


@contextlib.contextmanager
def _calling(answer: Callable[..., Any]) -> Iterator[None]:
    call = qml.QNode.__call__
    qml.QNode.__call__ = answer
    try:
        yield
    finally:
        qml.QNode.__call__ = call


def _call_key(qnode: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:  # noqa: ANN401
    """Return what tells calls apart at sight: the code, and all arguments but tensors' values."""
    values, spec = pytree.tree_flatten((args, kwargs))
    kinds = [v.dim() if isinstance(v, torch.Tensor) else repr(v) for v in values]
    return getattr(qnode.func, "__code__", qnode.func), str(spec), tuple(kinds)
