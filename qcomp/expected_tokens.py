"""``--tokens``: how many rows the layers of a language model are expected to compute at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qcomp.errors import UsageError, suggest

if TYPE_CHECKING:
    from qcomp.target import Target

__all__ = ["TOKENS", "expecting"]

TOKENS = ("decode", "prefill", "both")
"""One row at a time; many rows at once; a file that is used for both."""

_PASS = re.compile(r"quantize-weights(\{(?P<options>[^}]*)\})?(?=[,)\s]|$)")
_SMOOTHING = "smooth-activations"
_FIRST = re.compile(r"(gptq|gptaq|gpfq|rsq|nupes|jlcm|quantize-embeddings|quantize-weights)\b")
_OPTION = re.compile(r"\s*tokens\s*=")


def expecting(text: str | None, tokens: str, graph: Target | None, effort: str) -> str:
    """Return a pipeline's text whose ``quantize-weights`` expect a number of tokens.

    Where the 8-bit form is expected, the target's pipeline gets ``smooth-activations`` before what
    quantizes: that form has one scale an activation.

    Args:
        text: The pipeline; the target's, if it is None.
        tokens: One of :data:`TOKENS`.
        graph: The target of the graph.
        effort: Which of the target's pipelines.

    Raises:
        UsageError: Another word, a source without a graph, or a pipeline without that pass.
    """
    if graph is None:
        raise UsageError(
            "the source has no classical graph whose kernels could be chosen by tokens",
            hint="leave --tokens out",
        )
    own = text is not None
    text = graph.pipeline(effort) if text is None else text
    if tokens not in TOKENS:
        raise UsageError(f"tokens is '{tokens}'", hint=suggest(tokens, TOKENS))
    if not _PASS.search(text):
        raise UsageError(
            f"the pipeline has no 'quantize-weights', which takes tokens={tokens}",
            hint="take -t cpu-int4, or leave --tokens out: other forms are the same for any number",
        )

    def replaced(found: re.Match[str]) -> str:
        options = (found["options"] or "").split(",")
        kept = [part for part in options if part.strip() and not _OPTION.match(part)]
        return f"quantize-weights{{{','.join([*kept, f'tokens={tokens}'])}}}"

    text = _PASS.sub(replaced, text)
    if own or tokens == "decode" or _SMOOTHING in text:
        return text
    return _FIRST.sub(lambda found: f"{_SMOOTHING},{found[0]}", text, count=1)
