"""Zero-noise extrapolation: from values at several noise scales to the value without noise.

``E(lambda)`` is measured at ``lambda_1 .. lambda_K >= 1``; a model is fitted and read off at 0.

==============  ======================================================  ===============
method          model                                                   least K
==============  ======================================================  ===============
linear          ``a + b lambda``, least squares                         2
polynomial      ``sum_(i <= m) a_i lambda^i``, least squares            m + 1
richardson      the polynomial of degree K - 1 through all points       2
exponential     ``a + b exp(-c lambda)``, least squares                 3; 2 with a known
learned         a network that was shown many such decays               2
==============  ======================================================  ===============

Sources: Temme, Bravyi, Gambetta 2016 (arXiv:1612.02058) and Li, Benjamin 2016 (arXiv:1611.09301);
Endo, Benjamin, Li 2017 (arXiv:1712.09271) for the exponential model; Giurgica-Tiron et al. 2020
(arXiv:2005.10921) for the comparison of models; Bhattacharjee, Jain, Adhikari, Gupta 2024
(arXiv:2403.07025) for a network.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError, suggest
from qcomp.mitigation.network import Network

__all__ = ["CANDIDATES", "METHODS", "Extrapolation", "Method", "extrapolate", "held_out_residuals"]

Method = Literal["auto", "linear", "polynomial", "richardson", "exponential", "learned"]
METHODS: tuple[Method, ...] = (
    "auto", "linear", "polynomial", "richardson", "exponential", "learned",
)  # fmt: skip
CANDIDATES: tuple[Method, ...] = ("linear", "polynomial", "richardson", "exponential")
"""What ``auto`` chooses among; the network only where a caller names it."""

Floats = NDArray[np.float64]

_RATES = np.geomspace(1e-4, 6.0, 120)
"""Decays that are tried, over the span of the scales; beyond, nothing is left to extrapolate."""
_GOLDEN = (np.sqrt(5) - 1) / 2
_TRAINING_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """Values without noise, and how they were found.

    Attributes:
        values: float64[...], the values at scale 0.
        method: The model that was fitted; with ``auto`` the one that was chosen.
        scales: float64[K], the noise scales.
        measured: float64[..., K], the values that were measured.
        residuals: With ``auto`` each candidate's mean error on scales that were held out.
    """

    values: Floats
    method: Method
    scales: Floats
    measured: Floats
    residuals: Mapping[Method, float] = field(default_factory=dict)


def extrapolate(
    scales: ArrayLike,
    values: ArrayLike,
    method: Method = "auto",
    *,
    degree: int = 2,
    asymptote: float | ArrayLike | None = None,
    candidates: Sequence[Method] = CANDIDATES,
    seed: int = 0,
) -> Extrapolation:
    """Return the values at noise scale 0.

    Args:
        scales: float64[K], different noise scales, ascending or not.
        values: float64[..., K], what was measured at each; every leading entry is a curve of its
            own, all fitted at once.
        method: A model, or ``auto``: the candidate that best predicts a scale from the others,
            averaged over all scales and curves. With three scales that is a line or, where the
            asymptote is known, a decay; four make the choice a real one.
        degree: Degree of ``polynomial``.
        asymptote: The value at infinite noise where it is known, one or [...]: the constant term of
            an observable under depolarising noise. Fitted by default.
        candidates: What ``auto`` chooses among. ``learned`` is among them only if it is named here.
        seed: Seed of the network's training.

    Cost: K operations a curve; ``exponential`` some 150 K.

    Raises:
        UsageError: If scales and values do not fit, a method is unknown, or needs more scales.
    """
    x, y = _checked(scales, values)
    if method not in METHODS:
        raise UsageError(f"there is no extrapolation '{method}'", hint=suggest(method, METHODS))
    residuals: dict[Method, float] = {}
    if method == "auto":
        residuals = held_out_residuals(
            x, y, candidates, degree=degree, asymptote=asymptote, seed=seed
        )
        # Of equals the first, and where scales are too few for a hold-out the line: the model of
        # least assumptions.
        best = min(residuals.values(), default=0.0) * (1 + 1e-9) + 1e-12 * np.abs(y).max()
        equal = [name for name, error in residuals.items() if error <= best]
        method = equal[0] if equal else "linear"
    need = _least(method, degree, asymptote is not None)
    if len(x) < need:
        raise UsageError(
            f"'{method}' extrapolation needs {need} noise scales, {len(x)} were given",
            hint="give more scales, or method linear",
        )
    result = _MODELS[method](x, y, degree, asymptote, seed)
    return Extrapolation(result, method, x, y, residuals)


def held_out_residuals(
    scales: ArrayLike,
    values: ArrayLike,
    candidates: Sequence[Method] = CANDIDATES,
    *,
    degree: int = 2,
    asymptote: float | ArrayLike | None = None,
    seed: int = 0,
) -> dict[Method, float]:
    """Return each candidate's mean |error| at scales that were held out, each scale in turn.

    The scale held out is put at 0, so that a model reads off there what the others say of it.
    Candidates that the remaining scales are too few for are left out.
    """
    x, y = _checked(scales, values)
    found: dict[Method, float] = {}
    for name in candidates:
        if name not in _MODELS:
            raise UsageError(f"there is no extrapolation '{name}'", hint=suggest(name, _MODELS))
        if len(x) - 1 < _least(name, degree, asymptote is not None):
            continue
        errors = []
        for k in range(len(x)):
            rest = np.arange(len(x)) != k
            guess = _MODELS[name](x[rest] - x[k], y[..., rest], degree, asymptote, seed)
            errors.append(float(np.abs(guess - y[..., k]).mean()))
        found[name] = float(np.mean(errors))
    return found


def _checked(scales: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(scales, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or len(np.unique(x)) < len(x):
        raise UsageError("extrapolation needs at least 2 different noise scales")
    if y.ndim < 1 or y.shape[-1] != len(x):
        raise UsageError(
            f"values of shape {list(y.shape)} do not fit {len(x)} noise scales",
            hint="the last axis is the scales'",
        )
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise UsageError("noise scales and values must be finite numbers")
    return x, y


def _least(method: str, degree: int, known: bool) -> int:
    """Return how many scales a method needs."""
    return {"polynomial": degree + 1, "exponential": 2 if known else 3}.get(method, 2)


def _polynomial(x: Floats, y: Floats, degree: int) -> Floats:
    # Row 0 of the pseudo-inverse gives the constant term as a weighted sum of the values.
    weights = np.linalg.pinv(np.vander(x, degree + 1, increasing=True))[0]
    return np.asarray(y @ weights)


def _richardson(x: Floats, y: Floats) -> Floats:
    """``E(0) = sum_k E_k prod_(j != k) lambda_j / (lambda_j - lambda_k)``."""
    gaps = x[None, :] - x[:, None]
    np.fill_diagonal(gaps, 1.0)
    numerators = np.tile(x, (len(x), 1))
    np.fill_diagonal(numerators, 1.0)
    return np.asarray(y @ np.prod(numerators / gaps, axis=1))


def _exponential(x: Floats, y: Floats, asymptote: float | ArrayLike | None) -> Floats:
    """Fit by variable projection: for a decay c the best a and b are linear least squares.

    c is looked for on a grid in logarithmic steps, then between its neighbours by golden section,
    of all curves at once. Rates are in units of the scales' span.
    """
    lead = y.shape[:-1]
    curves = y.reshape(-1, y.shape[-1])
    known = asymptote is not None
    base = np.broadcast_to(np.asarray(asymptote if known else 0.0, np.float64), lead).reshape(-1)
    curves = curves - base[:, None]
    span = float(np.ptp(x))
    t = x / span

    def fit(c: Floats) -> tuple[Floats, Floats]:
        """Return (residual sum of squares, value at 0) for decays c[N, M], both [N, M]."""
        f = np.exp(-c[..., None] * t)
        v = np.broadcast_to(curves[:, None, :], f.shape)
        if known:
            b = (f * v).sum(-1) / (f * f).sum(-1)
            a = np.zeros_like(b)
        else:
            centred = f - f.mean(-1, keepdims=True)
            b = (centred * v).sum(-1) / (centred * centred).sum(-1)
            a = v.mean(-1) - b * f.mean(-1)
        error = ((a[..., None] + b[..., None] * f - v) ** 2).sum(-1)
        return error, a + b

    out = np.empty(len(curves))
    step = _RATES[1] / _RATES[0]
    everything = curves
    for start in range(0, len(everything), 4096):
        part = slice(start, start + 4096)
        curves = everything[part]
        grid = np.broadcast_to(_RATES, (len(curves), len(_RATES)))
        best = _RATES[fit(grid)[0].argmin(axis=1)]
        low, high = np.log(best / step), np.log(best * step)
        for _ in range(30):
            inner = np.stack([high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)], axis=1)
            error, _ = fit(np.exp(inner))
            left = error[:, 0] <= error[:, 1]
            high, low = np.where(left, inner[:, 1], high), np.where(left, low, inner[:, 0])
        out[part] = fit(np.exp((low + high) / 2)[:, None])[1][:, 0]
    return np.asarray((out + base).reshape(lead))


def _learned(x: Floats, y: Floats, seed: int) -> Floats:
    """Return what the network says of the curves, each brought to mean 0 and unit spread."""
    network = _trained(tuple(x.tolist()), seed)
    curves = y.reshape(-1, y.shape[-1])
    inputs, mean, spread = _normal(curves)
    return np.asarray((mean + spread * network(inputs)).reshape(y.shape[:-1]))


def _normal(curves: Floats) -> tuple[Floats, Floats, Floats]:
    mean = curves.mean(axis=-1)
    spread = np.ptp(curves, axis=-1)
    safe = np.where(spread > 0, spread, 1.0)
    return (curves - mean[:, None]) / safe[:, None], mean, spread


@functools.lru_cache(maxsize=32)
def _trained(scales: tuple[float, ...], seed: int) -> Network:
    """Return a network trained on random decays ``a + sum_(i <= 3) b_i exp(-c_i lambda)``.

    A Pauli channel on each gate damps each path of Pauli products by its own power: expectation
    values under scaled noise are sums of such decays. A hundredth of the spread is added as noise.
    """
    rng = np.random.default_rng(seed)
    x = np.array(scales)
    shape = (_TRAINING_ROWS, 3)
    rates = np.exp(rng.uniform(np.log(0.01), np.log(1.0), shape))
    weights = rng.normal(size=shape) * rng.random(shape)
    curves = (weights[..., None] * np.exp(-rates[..., None] * x)).sum(axis=1)
    curves += 0.01 * np.ptp(curves, axis=1)[:, None] * rng.normal(size=curves.shape)
    inputs, mean, spread = _normal(curves)
    targets = np.clip((weights.sum(axis=1) - mean) / spread, -5, 5)
    return Network.train(inputs, targets, rng)


_MODELS = {
    "linear": lambda x, y, degree, asymptote, seed: _polynomial(x, y, 1),
    "polynomial": lambda x, y, degree, asymptote, seed: _polynomial(x, y, degree),
    "richardson": lambda x, y, degree, asymptote, seed: _richardson(x, y),
    "exponential": lambda x, y, degree, asymptote, seed: _exponential(x, y, asymptote),
    "learned": lambda x, y, degree, asymptote, seed: _learned(x, y, seed),
}
