"""``capture``: quantum layers of other frameworks on our operator, to train them faster."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from qcomp.registry import load

__all__ = ["capture"]


def capture(module: torch.nn.Module, example_inputs: object) -> torch.nn.Module:
    """Return a module whose quantum layers are captured: same values, same weights, trainable.

    Layers of PennyLane and Qiskit Machine Learning, and those with ``__qcomp_circuit__``, run on
    the built-in simulator and are differentiated by the adjoint method. Parameters are the very
    objects of the module, so what is trained here is trained there. Each capture was compared with
    its original (``docs/hybrid.md``).

    Example:
        >>> fast = qcomp.nn.capture(model, torch.zeros(1, 4))
        >>> optimizer = torch.optim.Adam(fast.parameters())

    Args:
        module: Any module; it is left as it was.
        example_inputs: A tensor, a tuple of the positional arguments, or a mapping of the keyword
            arguments.

    Raises:
        SourceError: If a quantum layer cannot be captured, with its name and the operation.
    """
    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = {}
    if isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    elif isinstance(example_inputs, (tuple, list)):
        args = tuple(example_inputs)
    else:
        args = (example_inputs,)
    captured: torch.nn.Module = load("services", "capture-module")(module, args, kwargs)
    return captured
