"""Pictures to pixel values, as transformers' processors prepare them with Pillow."""

import io
import warnings
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from errors import UserError

MOST_PIXELS = 100_000_000
"""A picture of more is refused before it is unpacked: a few kilobytes of PNG can unfold to gigabytes."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are pixels. Pillow gives PostScript to a program of its own to run."""

PictureItem = str | Path | bytes | NDArray[np.uint8]
"""A file's path, a file's bytes, or an array of (height, width, channels)."""


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What happens to a picture, in this order. `height` and `width` are those of the input.

    `resize` is to `size` (height, width) exactly, or until the shorter edge has `size[0]` pixels; `crop` then cuts the
    middle out, padding with black. `scale` multiplies, and `mean` and `std` of each channel follow. `resample` is a
    filter by Pillow's number.
    """

    channels: int
    resize: Literal["exact", "shortest", "none"]
    size: tuple[int, ...]
    resample: int
    crop: tuple[int, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        edges = (*self.size, *self.crop)
        if self.channels not in (1, 3) or not 0 <= self.resample <= 5:
            raise ValueError("a picture has 1 or 3 channels, and a filter of 0 to 5")
        if any(not 1 <= edge <= 16_384 for edge in edges):
            raise ValueError("an edge has 1 to 16,384 pixels")
        if len(self.size) != {"exact": 2, "shortest": 1, "none": 0}[self.resize] or len(self.crop) not in (0, 2):
            raise ValueError("a size does not fit how pictures are resized")
        if max(self.size, default=1) ** 2 > MOST_PIXELS or max(self.crop, default=1) ** 2 > MOST_PIXELS:
            raise ValueError("a picture would become too large")
        if any(len(part) not in (0, self.channels) for part in (self.mean, self.std)) or 0.0 in self.std:
            raise ValueError("mean and std have a number for each channel, and std none that is 0")

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width that every picture gets; `None` where they follow from its own."""
        if self.crop:
            return self.crop[0], self.crop[1]
        return (self.size[0], self.size[1]) if self.resize == "exact" else None


def read_picture(item: PictureItem, settings: ImageSettings) -> NDArray[np.uint8]:
    """Pixels of shape (height, width, channels), turned as the camera says.

    Raises `UserError` when Pillow is not installed, and for what is no picture or has more than `MOST_PIXELS`.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UserError("pictures need Pillow, which is not installed", "pip install -r requirements.txt") from None
    name = f"a picture of {len(item):,} bytes" if isinstance(item, bytes) else str(item)
    if isinstance(item, np.ndarray):
        name = "an array"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if isinstance(item, np.ndarray):
                opened = Image.fromarray(item)
            else:
                opened = Image.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=FORMATS)
        with opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise UserError(f"{name} has {opened.width:,} × {opened.height:,} pixels", "make it smaller first")
            image = ImageOps.exif_transpose(opened).convert("RGB" if settings.channels == 3 else "L")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{name} does not exist", "check the path") from None
    except Exception as error:  # Pillow's readers raise many types, all of them about this file
        raise UserError(f"{name} is not a picture that Pillow reads: {error}", "convert it to PNG or JPEG") from None
    return np.atleast_3d(np.asarray(image, dtype=np.uint8))


def prepare_picture(pixels: NDArray[np.uint8], settings: ImageSettings) -> NDArray[np.float32]:
    """Pixels (height, width, channels) to pixel values, float32 (channels, height, width)."""
    found = pixels
    if settings.resize != "none":
        found = _resized(found, _target(found, settings), settings.resample)
    if settings.crop:
        found = _cropped(found, settings.crop[0], settings.crop[1])
    values = (found.astype(np.float64) * settings.scale).astype(np.float32)
    if settings.mean:
        values = values - np.asarray(settings.mean, dtype=np.float32)
        values = np.asarray(values / np.asarray(settings.std, dtype=np.float32), dtype=np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)


def _target(pixels: NDArray[np.uint8], settings: ImageSettings) -> tuple[int, int]:
    if settings.resize == "exact":
        return settings.size[0], settings.size[1]
    height, width = pixels.shape[:2]
    short = settings.size[0]
    long = int(short * max(height, width) / min(height, width))
    return (long, short) if width <= height else (short, long)


def _resized(pixels: NDArray[np.uint8], target: tuple[int, int], resample: int) -> NDArray[np.uint8]:
    from PIL import Image

    if target[0] * target[1] > MOST_PIXELS:
        raise UserError(f"a picture would be resized to {target[1]:,} × {target[0]:,} pixels", "cut it first")
    image: Any = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return np.atleast_3d(np.asarray(image.resize((target[1], target[0]), resample=resample), dtype=np.uint8))


def _cropped(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle; where the picture is smaller, black lies around it."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + height, left : left + width]
    canvas_height, canvas_width = max(height, pixels.shape[0]), max(width, pixels.shape[1])
    canvas = np.zeros((canvas_height, canvas_width, pixels.shape[2]), dtype=pixels.dtype)
    above, before = ceil((canvas_height - pixels.shape[0]) / 2), ceil((canvas_width - pixels.shape[1]) / 2)
    canvas[above : above + pixels.shape[0], before : before + pixels.shape[1]] = pixels
    top, left = top + above, left + before
    return canvas[max(0, top) : top + height, max(0, left) : left + width]
