"""Train the character model and write ``char_model.npz`` beside this script.

Run it from anywhere: ``python examples/char_model/train.py``. It takes about half a minute on one
core and is seeded; ``--out`` writes elsewhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))

import char_model

STEPS, BATCH = 744, 9
RATE, DECAY, WARM_UP = 3e-3, 0.1, 40

Parameters = dict[str, torch.nn.Parameter]


def parameters(characters: int) -> Parameters:
    """Weights [inputs, outputs], normal with deviation .02 (into the residual: less), gains 1."""
    width, hidden = char_model.WIDTH, char_model.HIDDEN
    shapes = {"embedding": (characters, width), "norm": (width,), "head": (width, characters)}
    for b in range(char_model.BLOCKS):
        shapes |= {f"{b}.attention_norm": (width,), f"{b}.mlp_norm": (width,)}
        shapes |= {f"{b}.{name}": (width, width) for name in "qkvo"}
        shapes |= {f"{b}.gate": (width, hidden), f"{b}.up": (width, hidden)}
        shapes |= {f"{b}.down": (hidden, width)}
    made = {}
    for name, shape in shapes.items():
        deviation = 0.02 if name[-1] not in "on" else 0.02 / (2 * char_model.BLOCKS) ** 0.5
        start = torch.randn(shape) * deviation if len(shape) == 2 else torch.ones(shape)
        made[name] = torch.nn.Parameter(start)
    return made


def logits(w: Parameters, ids: torch.Tensor) -> torch.Tensor:
    """int64[n, t] -> float32[n, t, characters]; the same function as the ONNX graph."""
    n, t = ids.shape
    cos, sin = (torch.from_numpy(table) for table in char_model.rotary_tables(t))

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + char_model.EPSILON) * gain

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.view(n, t, char_model.HEADS, char_model.HEAD).transpose(1, 2)

    def rotary(x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-high, low], dim=-1) * sin

    x = w["embedding"][ids]
    for b in range(char_model.BLOCKS):
        y = norm(x, w[f"{b}.attention_norm"])
        q, k, v = (heads(y @ w[f"{b}.{part}"]) for part in "qkv")
        mixed = functional.scaled_dot_product_attention(rotary(q), rotary(k), v, is_causal=True)
        x = x + mixed.transpose(1, 2).reshape(n, t, -1) @ w[f"{b}.o"]
        y = norm(x, w[f"{b}.mlp_norm"])
        hidden = functional.silu(y @ w[f"{b}.gate"]) * (y @ w[f"{b}.up"])
        x = x + hidden @ w[f"{b}.down"]
    return norm(x, w["norm"]) @ w["head"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=char_model.CHECKPOINT)
    out = options.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(0)
    alphabet = "".join(sorted(set(char_model.text())))
    train, held_out = char_model.split(char_model.tokens(alphabet))
    w = parameters(len(alphabet))
    matrices = [p for p in w.values() if p.ndim == 2]
    gains = [p for p in w.values() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": gains, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))
    rng = np.random.default_rng(0)
    began = time.process_time()
    for step in range(STEPS):
        warm = min(1.0, (step + 1) / WARM_UP)
        for group in adam.param_groups:
            group["lr"] = RATE * warm * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        starts = rng.integers(0, len(train) - char_model.CONTEXT - 1, BATCH)
        rows = np.stack([train[s : s + char_model.CONTEXT + 1] for s in starts])
        batch = torch.from_numpy(rows)
        loss = functional.cross_entropy(
            logits(w, batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        )
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        adam.step()
        if step % 50 == 0:
            print(
                f"step {step:4d} loss {loss.item():.4f} {time.process_time() - began:.0f} s",
                flush=True,
            )
    with torch.no_grad():
        scores = logits(w, torch.from_numpy(held_out[:, :-1])).numpy()
    print(
        f"perplexity per character, held out: {char_model.perplexity(scores, held_out[:, 1:]):.4f}"
    )
    print(f"{sum(p.numel() for p in w.values())} parameters")
    np.savez_compressed(
        out, alphabet=np.array(alphabet), **{name: p.detach().numpy() for name, p in w.items()}
    )


if __name__ == "__main__":
    main()
