"""Quantum layers inside PyTorch modules: found, captured, swapped for ``torch.export``, checked.

A **capturer** turns one layer of a framework into a module of our own::

    capture(layer: torch.nn.Module, args: tuple, kwargs: dict) -> torch.nn.Module

``args`` and ``kwargs`` are what the layer is called with. The replacement takes the same arguments
and gives the same values by ``torch.ops.qcomp.circuit``; its parameters are the layer's own
``Parameter`` objects under the names they have there, so that nothing is copied and nothing is
baked in. What cannot be captured is refused by a ``SourceError`` that names the operation or line.
The replacement may have three more attributes:

``structure: str``
    The text of its circuits and readouts. The layer is then captured a second time, with other
    inputs and other weights, and refused when the text changes.
``reference(*args, **kwargs)``
    What the original gives with its shot noise off, in float64 where it can, without its device
    where there is another way. Without it the original itself is asked.
``exact() -> context manager``
    In which ``forward`` takes no shots.

A layer of ours is taken as it is, a layer with ``__qcomp_circuit__`` by its protocol
(``docs/hybrid.md``), and any other class of a quantum framework is refused by name: exporting it
would trace its simulator, or run its device and keep the numbers.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from qcomp.errors import QcompError, SourceError

if TYPE_CHECKING:
    import torch

    from qcomp.ir.program import Comparison

    Capturer = Callable[[torch.nn.Module, tuple[Any, ...], dict[str, Any]], torch.nn.Module]

__all__ = ["CALL_SITES", "CAPTURERS", "PROTOCOL", "capture_module", "captured_layers", "twin"]

CAPTURERS: dict[str, str] = {
    "pennylane.qnn.torch.TorchLayer": "qcomp.frontends.pennylane_layers:capture_torch_layer",
    "qiskit_machine_learning.connectors.torch_connector.TorchConnector": (
        "qcomp.frontends.qiskit_ml:capture_connector"
    ),
    "torchquantum.module.modules.QuantumModule": (
        "qcomp.frontends.torchquantum_layers:capture_quantum_module"
    ),
}
"""Full name of a layer's class (of the class or a base) -> "module:function" of its capturer."""

CALL_SITES: dict[str, str] = {"pennylane": "qcomp.frontends.pennylane_layers:QNodeCalls"}
"""Package -> "module:class" that captures the package's circuits where a ``forward`` calls them.

The class is made with (where, comparisons); its context manager ``recording()`` is entered while
the module runs once on its example inputs, ``exporting()`` while it is exported.
"""

PROTOCOL = "__qcomp_circuit__"
"""Name of the method by which any module gives its circuit."""

_PROTOCOL_CAPTURER = "qcomp.frontends.circuit_protocol:capture_protocol"
_OWN = "qcomp.nn."
_FRAMEWORKS = frozenset(
    "cudaq deepquantum mindquantum paddle_quantum pennylane pennylane_lightning pyqpanda qiskit "
    "qiskit_machine_learning qulacs squlearn tensorcircuit torchquantum".split()
)
_NEVER = "torch.nn.modules.module.Module"


def twin(layer: torch.nn.Module) -> torch.nn.Module:
    """Return a shallow copy of a layer: attributes of its own, the same ``Parameter`` objects."""
    new = copy.copy(layer)
    attributes = vars(new)
    for name in ("_parameters", "_buffers", "_modules"):
        attributes[name] = dict(attributes[name])
    attributes.pop("forward", None)
    return new


@contextlib.contextmanager
def captured_layers(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    where: str,
    comparisons: list[Comparison],
) -> Iterator[torch.nn.Module]:
    """Give a module that ``torch.export`` can take: its quantum layers are captured ones.

    The module's own layers are back in their places afterwards.

    Args:
        module: Any module, in evaluation mode.
        args: Its positional example inputs.
        kwargs: Its keyword example inputs.
        where: What messages call the module.
        comparisons: Gets one for each captured layer: how it compared with the original.

    Raises:
        SourceError: If a quantum layer is unknown, cannot be captured, or its capture does not
            give the original's values.
    """
    layers = _quantum_layers(module)
    specs = [spec for package, spec in CALL_SITES.items() if package in sys.modules]
    sites = [_attribute(spec)(where, comparisons) for spec in specs]
    if not layers and not sites:
        yield module
        return
    recorder = _Recorder(layers)
    with contextlib.ExitStack() as stack:
        for site in sites:
            stack.enter_context(site.recording())
        recorder.run(module, args, kwargs, where)
    from qcomp.frontends.capture_check import check_capture

    for found in recorder.captured:
        assert found.replacement is not None
        what = f"quantum layer '{found.name}' ({type(found.layer).__name__})"
        comparisons.append(
            check_capture(what, found.layer, found.replacement, found.capture, found.calls)
        )
    with contextlib.ExitStack() as stack:
        for site in sites:
            stack.enter_context(site.exporting())
        yield stack.enter_context(
            _swapped(module, {id(f.layer): f.replacement for f in recorder.captured})
        )


def capture_module(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.nn.Module:
    """Return a module with captured layers in the places of its quantum layers.

    All parameters are the module's own objects; the module itself is left as it was. QNodes that a
    ``forward`` calls itself stay what they are.

    Args:
        module: Any module.
        args: Its positional example inputs.
        kwargs: Its keyword example inputs.

    Raises:
        SourceError: See :func:`captured_layers`.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    copies: dict[int, torch.nn.Module] = {}

    def copied(part: torch.nn.Module) -> torch.nn.Module:
        if id(part) not in copies:
            copies[id(part)] = new = twin(part)
            for name, child in part._modules.items():
                if child is not None:
                    new._modules[name] = copied(child)
            own_forward = vars(part).get("forward")
            if own_forward is not None:
                vars(new)["forward"] = own_forward
        return copies[id(part)]

    try:
        with captured_layers(module, args, kwargs, type(module).__name__, []) as swapped:
            result = copied(swapped)
    finally:
        for part, training in modes.items():
            part.training = training
    return result.train(module.training)


class _Layer:
    """A quantum layer of a module, and what is known of it.

    Attributes:
        name: Its path in the module; the class's name where it is the module itself.
        layer: The original.
        capture: Its capturer.
        replacement: The captured layer, once the layer was called.
        calls: The arguments of its calls, one each of a kind of shapes.
    """

    def __init__(self, name: str, layer: torch.nn.Module, capture: Capturer) -> None:
        self.name = name
        self.layer = layer
        self.capture = capture
        self.replacement: torch.nn.Module | None = None
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._shapes: set[str] = set()

    def remember(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the arguments of a call unless one with the same shapes is there."""
        import torch
        from torch.utils import _pytree as pytree

        def kept(value: object) -> object:
            return value.detach().clone() if isinstance(value, torch.Tensor) else value

        key = str(
            pytree.tree_map(
                lambda v: (str(v.dtype), tuple(v.shape)) if isinstance(v, torch.Tensor) else v,
                (args, kwargs),
            )
        )
        if key not in self._shapes and len(self.calls) < 4:
            self._shapes.add(key)
            self.calls.append(pytree.tree_map(kept, (args, kwargs)))


class _Recorder:
    """Runs a module once on its example inputs, every quantum layer captured as it is called."""

    def __init__(self, layers: list[_Layer]) -> None:
        self.layers = layers
        self.known: set[int] = set()
        self.answering = False

    @property
    def captured(self) -> list[_Layer]:
        """The layers that were called, in the module's order."""
        return [layer for layer in self.layers if layer.replacement is not None]

    def run(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], where: str
    ) -> None:
        """Call the module; no quantum device runs, as layers answer by their captures.

        Raises:
            SourceError: If a layer cannot be captured, or the module fails.
        """
        import torch

        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(_forward_of(layer.layer, self._answer(layer)))
            self.known = {id(part) for part in module.modules()}
            stack.enter_context(_refusing_unregistered(self))
            stack.enter_context(torch.no_grad())
            try:
                module(*args, **kwargs)
            except QcompError:
                raise
            except Exception as error:  # a user's forward may raise anything
                raise SourceError(
                    "the model does not run on its example inputs",
                    where=where,
                    why=f"{type(error).__name__}: {str(error).strip()[:300]}",
                    hint="give example inputs that forward takes",
                ) from error

    def _answer(self, found: _Layer) -> Callable[..., Any]:
        import torch

        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  the layer's own
            found.remember(args, kwargs)
            self.answering = True
            try:
                return answer(args, kwargs)
            finally:
                self.answering = False

        def answer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
            if found.replacement is None:
                with _forward_of(found.layer, None), torch.enable_grad():
                    try:
                        replacement = found.capture(found.layer, args, kwargs)
                    except QcompError as error:
                        error.where = error.where or f"quantum layer '{found.name}'"
                        raise
                replacement.train(found.layer.training)
                self.known.update(id(part) for part in replacement.modules())
                found.replacement = replacement
            return found.replacement(*args, **kwargs)

        return forward


def _quantum_layers(module: torch.nn.Module) -> list[_Layer]:
    """Return the module's quantum layers with their capturers; those inside them are theirs."""
    found: list[_Layer] = []
    seen: set[int] = set()

    def visit(part: torch.nn.Module, path: str) -> None:
        if id(part) in seen:
            return
        seen.add(id(part))
        capture = _capturer_of(part)
        if capture is not None:
            found.append(_Layer(path or type(part).__name__, part, capture))
            return
        for name, child in part._modules.items():
            if child is not None:
                visit(child, f"{path}.{name}" if path else name)

    visit(module, "")
    return found


def _capturer_of(part: torch.nn.Module) -> Capturer | None:
    """Return the capturer of a quantum layer, None for any other module."""
    bases = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(part).__mro__]
    if hasattr(type(part), PROTOCOL):
        return _lazily(_PROTOCOL_CAPTURER)
    if bases[0].startswith(_OWN):
        return None
    known = next((base for base in bases if base in CAPTURERS), None)
    if known is not None:
        return _lazily(CAPTURERS[known])
    for base in bases:
        if base == _NEVER:
            break
        package = base.partition(".")[0]
        if package in _FRAMEWORKS:
            return _refusal(base, package)
    return None


def _lazily(spec: str) -> Capturer:
    def capture(
        layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.nn.Module:
        replacement: torch.nn.Module = _attribute(spec)(layer, args, kwargs)
        return replacement

    return capture


def _refusal(kind: str, package: str) -> Capturer:
    def capture(
        layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.nn.Module:
        raise SourceError(
            f"the quantum layer {kind} is not known",
            why=f"exporting it would trace the simulator of {package}, not its circuit",
            hint=f"known layers: {', '.join(CAPTURERS) or 'none'}; any module that has the method "
            f"{PROTOCOL} is taken too (docs/hybrid.md)",
        )

    return capture


def _attribute(spec: str) -> Any:  # noqa: ANN401  a function or a class of the tables above
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def _forward_of(layer: torch.nn.Module, forward: Callable[..., Any] | None) -> Iterator[None]:
    """Give one layer another ``forward``, or its class's, and its own back afterwards."""
    attributes = vars(layer)
    own = attributes.pop("forward", None)
    if forward is not None:
        attributes["forward"] = forward
    try:
        yield
    finally:
        attributes.pop("forward", None)
        if own is not None:
            attributes["forward"] = own


@contextlib.contextmanager
def _refusing_unregistered(recorder: _Recorder) -> Iterator[None]:
    """Refuse a quantum layer that is called but is no part of the module, nor inside a layer.

    Raises:
        SourceError: From the module's ``forward``, when it calls such a layer.
    """
    from torch.nn.modules.module import register_module_forward_pre_hook

    def look(part: torch.nn.Module, inputs: object) -> None:
        if recorder.answering or id(part) in recorder.known or _is_ours(part):
            return
        if _capturer_of(part) is not None:
            raise SourceError(
                f"the quantum layer {type(part).__name__} is called but is not registered",
                why="its weights would become constants",
                hint="keep it as an attribute, or in a torch.nn.ModuleList or ModuleDict",
            )

    handle = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _is_ours(part: torch.nn.Module) -> bool:
    return type(part).__module__.startswith("qcomp.")


@contextlib.contextmanager
def _swapped(module: torch.nn.Module, replacements: dict[int, Any]) -> Iterator[torch.nn.Module]:
    """Put replacements in the places of their layers, and the layers back afterwards."""
    if id(module) in replacements:
        yield replacements[id(module)]
        return
    places: list[tuple[dict[str, Any], str, torch.nn.Module]] = []
    for part in module.modules():
        for name, child in part._modules.items():
            if child is not None and id(child) in replacements:
                places.append((part._modules, name, child))
    for holder, name, child in places:
        replacement = replacements[id(child)]
        vars(replacement).update({key: v for key, v in vars(child).items() if "_hooks" in key})
        holder[name] = replacement
    try:
        yield module
    finally:
        for holder, name, child in places:
            holder[name] = child
