"""Images and series that look natural to a network, made from nothing but random numbers.

    image = clip(contrast * standardized(leaves + 0.3 noise) + brightness)

``leaves`` is the dead leaves model: ellipses and rectangles of random sizes (density ~ r^-2),
colours and shades that cover one another, which has the edges and the statistics of scales of
natural images; ``noise`` has the spectrum 1 / f, most of it common to all channels. Networks
react to both as to photographs, while white noise leaves most of their later channels silent.

Source: Lee, Mumford and Huang 2001, "Occlusion models for natural images"; Baradad et al. 2021,
"Learning to see by looking at noise", arXiv:2106.05963.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["SPREAD", "made_images", "made_series"]

Floats = npt.NDArray[np.float32]

SPREAD = 2.7
"""Values lie in [-SPREAD, SPREAD]: pixels in [0, 1], less a mean near 0.5, over 0.2 or more."""

_RENDERED = 64
"""Larger images are rendered at this size and enlarged."""

_LEAVES = 60


def made_images(
    count: int, channels: int, height: int, width: int, rng: np.random.Generator
) -> Floats:
    """Return images float32[count, channels, height, width] in [-SPREAD, SPREAD].

    Cost: about 30 shapes of at most 64 x 64 pixels an image.
    """
    h, w = min(height, _RENDERED), min(width, _RENDERED)
    x = _leaves(count, channels, h, w, rng)
    x = _blurred(_standardized(x))
    grey, colours = _pink((count, 1, h, w), rng), _pink((count, channels, h, w), rng)
    x = _standardized(x + 0.3 * _standardized(grey + 0.45 * colours))
    contrast = rng.uniform(0.4, 1.7, (count, 1, 1, 1))
    x = x * contrast + rng.normal(0.0, 0.5, (count, 1, 1, 1))
    if (h, w) != (height, width):
        rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
        x = _blurred(x[:, :, rows][:, :, :, columns])
    return np.clip(x, -SPREAD, SPREAD).astype(np.float32)


def made_series(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return numbers float32[count, *shape] in [-SPREAD, SPREAD].

    They are normal; along the first of several axes, the time, half of them is 1 / f noise.
    """
    x = rng.normal(size=(count, *shape))
    if len(shape) > 1 and shape[0] > 1:
        smooth = np.moveaxis(_pink((count, *shape[1:], shape[0]), rng, axes=1), -1, 1)
        x = np.where(rng.uniform(size=(count, *[1] * len(shape))) < 0.5, x, _standardized(smooth))
    return np.clip(x, -SPREAD, SPREAD).astype(np.float32)


def _leaves(n: int, c: int, h: int, w: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    out = np.empty((n, c, h, w))
    side = min(h, w)
    least, most = max(0.04 * side, 1.0), 0.6 * side
    for image in out:
        image[:] = (rng.normal() + 0.7 * rng.normal(size=c))[:, None, None]
        for _ in range(int(rng.integers(3, _LEAVES))):
            # 1 / r is even between its ends, so the density of r falls as r^-2.
            r = 1.0 / (1.0 / least + rng.uniform() * (1.0 / most - 1.0 / least))
            turn, flat = rng.uniform(0.0, np.pi), rng.uniform(0.3, 1.0)
            dy, dx = y - rng.uniform(0.0, h), x - rng.uniform(0.0, w)
            p = (dx * np.cos(turn) + dy * np.sin(turn)) / r
            q = (dy * np.cos(turn) - dx * np.sin(turn)) / (r * flat)
            inside = p * p + q * q < 1.0 if rng.uniform() < 0.5 else np.maximum(abs(p), abs(q)) < 1
            colour = rng.normal() + 0.35 * rng.normal(size=c)
            shade = 0.4 * rng.normal() * p
            np.copyto(image, colour[:, None, None] + shade, where=inside)
    return out


def _pink(
    shape: tuple[int, ...], rng: np.random.Generator, axes: int = 2
) -> npt.NDArray[np.float64]:
    """Noise whose amplitude falls as 1 / frequency over the last ``axes`` axes."""
    last = tuple(range(len(shape) - axes, len(shape)))
    grids = np.meshgrid(*[np.fft.fftfreq(shape[axis]) for axis in last], indexing="ij")
    frequency = np.sqrt(sum(grid**2 for grid in grids))
    frequency[(0,) * axes] = 1.0 / max(shape[axis] for axis in last)
    spectrum = np.fft.fftn(rng.normal(size=shape), axes=last) / frequency
    return np.asarray(np.fft.ifftn(spectrum, axes=last).real)


def _standardized(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each sample with mean 0 and deviation 1."""
    axes = tuple(range(1, x.ndim))
    x = x - x.mean(axes, keepdims=True)
    return np.asarray(x / np.maximum(x.std(axes, keepdims=True), 1e-6))


def _blurred(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(1, 2, 1) / 4 along both image axes."""
    for axis in (-2, -1):
        before, after = [slice(None)] * x.ndim, [slice(None)] * x.ndim
        pads = [(0, 0)] * x.ndim
        pads[axis] = (1, 1)
        wide = np.pad(x, pads, mode="edge")
        before[axis], after[axis] = slice(None, -2), slice(2, None)
        x = 0.5 * x + 0.25 * (wide[tuple(before)] + wide[tuple(after)])
    return x
