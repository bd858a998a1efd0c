"""A folder of PNG and JPEG images as one array ``images``: uint8[n, height, width, 3]."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qcomp.errors import UsageError
from qcomp.feeds.columns import Columns, Header, Rows
from qcomp.feeds.inputs import Array

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGES", "ImageColumns", "ImageShape", "resized"]

IMAGES = "images"
"""Name of the array that a folder's images make."""

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


class ImageShape:
    """How an image is brought to the size of the others.

    Args:
        resize: (height, width), or the length of the shorter side; None to keep the size.
        crop: (height, width) cut from the middle afterwards; None to keep all.
        channels: 3 for RGB, 1 for grey.
    """

    def __init__(
        self,
        resize: tuple[int, int] | int | None = None,
        crop: tuple[int, int] | None = None,
        channels: int = 3,
    ) -> None:
        self.resize, self.crop, self.channels = resize, crop, channels

    def __call__(self, image: Image) -> Array:
        """Return the image as uint8[height, width, channels]."""
        from PIL.Image import Resampling

        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.resize is not None:
            width, height = image.size
            if isinstance(self.resize, int):
                short = min(width, height)
                size = (
                    max(1, round(width * self.resize / short)),
                    max(1, round(height * self.resize / short)),
                )
            else:
                size = (self.resize[1], self.resize[0])
            if size != image.size:
                image = image.resize(size, Resampling.BILINEAR)
        if self.crop is not None:
            height, width = self.crop
            if image.size[0] < width or image.size[1] < height:
                raise UsageError(
                    f"an image of {image.size[1]} x {image.size[0]} is smaller than the crop "
                    f"{height} x {width}",
                    hint="resize before the crop",
                )
            left, top = (image.size[0] - width) // 2, (image.size[1] - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image, np.uint8).reshape(image.size[1], image.size[0], self.channels)


class ImageColumns(Columns):
    """The images of a folder and the folders in it, in the order of their paths.

    Args:
        folder: The folder.
        shape: How images are brought to one size.

    Raises:
        UsageError: If there is no image, or Pillow is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], shape: ImageShape) -> None:
        _need_pillow("a folder of images")
        self.folder, self.shape = Path(folder), shape
        self.where = str(self.folder)
        self.files = sorted(
            file
            for file in self.folder.rglob("*")
            if file.suffix.lower() in _SUFFIXES and file.is_file()
        )
        if not self.files:
            raise UsageError(
                f"the folder '{self.folder}' holds no image",
                hint="images are files ending in " + ", ".join(sorted(_SUFFIXES)),
            )
        sizes = (len(self.files), None, None, shape.channels)
        self.headers = {IMAGES: Header(np.dtype(np.uint8), sizes)}

    def rows(self, name: str) -> Rows:
        """Start reading the images."""
        return _ImageRows(self)


class _ImageRows(Rows):
    def __init__(self, owner: ImageColumns) -> None:
        self._owner, self._next = owner, 0

    def read(self, count: int) -> Array:
        files = self._owner.files[self._next : self._next + count]
        self._next += count
        images = [self._image(file) for file in files]
        for file, image in zip(files, images, strict=True):
            if image.shape != images[0].shape:
                raise UsageError(
                    "the images have different sizes",
                    where=str(file),
                    why=f"{_size(image)}, where '{files[0].name}' has {_size(images[0])}",
                    hint='--preprocess with {"resize": [height, width]}',
                )
        return np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8)

    def _image(self, file: Path) -> Array:
        from PIL import Image

        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                return self._owner.shape(image)
        except UsageError as error:
            error.where = str(file)
            raise
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            Image.DecompressionBombError,
        ) as error:
            raise UsageError(
                "an image cannot be read", where=str(file), why=str(error).partition("\n")[0]
            ) from error

    def skip(self, count: int) -> None:
        self._next += count


def resized(array: Array, shape: ImageShape) -> Array:
    """Resize and crop images in an array, uint8[n, height, width, 1 or 3], as files would be.

    Raises:
        UsageError: If the array is not of that kind.
    """
    _need_pillow("resizing")
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3):
        raise UsageError(
            f"an array of {array.dtype.name}{list(array.shape)} is not a batch of images",
            why="resize and crop take uint8[n, height, width, 1 or 3]",
        )
    from PIL import Image

    same = ImageShape(shape.resize, shape.crop, int(array.shape[3]))
    images = [
        same(Image.fromarray(np.ascontiguousarray(row[..., 0] if row.shape[2] == 1 else row)))
        for row in array
    ]
    return np.stack(images) if images else array


def _need_pillow(what: str) -> None:
    try:
        import PIL  # noqa: F401  only whether it is there
    except ImportError as error:
        raise UsageError(
            f"{what} needs the package 'pillow', which is not installed",
            hint="pip install 'qcomp[images]'",
        ) from error


def _size(image: Array) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"
