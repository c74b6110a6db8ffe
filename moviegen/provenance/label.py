"""The visible label: a line of text in the lower left corner, for those who are to see at once what they look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

HEIGHT = 1 / 24  # of the letters, as a part of the frame's shorter side
LEAST_PIXELS = 8  # smaller letters cannot be read


class Label:
    """Writes a text into frames of one size, white on a dark ground."""

    def __init__(self, text: str, height: int, width: int) -> None:
        """Raises ValueError where the text has no room."""
        size = max(LEAST_PIXELS, round(min(height, width) * HEIGHT))
        font = ImageFont.load_default(size)
        left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
        pad = max(1, size // 4)
        self.box_height, self.box_width = bottom - top + 2 * pad, right - left + 2 * pad
        if self.box_width > width or self.box_height > height:
            need = f"{self.box_width}x{self.box_height} pixels"
            raise ValueError(f"marking.label={text!r} needs {need}, the clip has {width}x{height}")
        picture = Image.new("L", (self.box_width, self.box_height), 0)
        ImageDraw.Draw(picture).text((pad - left, pad - top), text, fill=255, font=font)
        self.ink = (np.asarray(picture, np.float32) / 255)[:, :, None]

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame uint8 [H, W, 3] with the label."""
        out = frame.copy()
        corner = out[-self.box_height :, : self.box_width]
        corner[:] = np.rint(corner * 0.35 * (1 - self.ink) + 255 * self.ink)
        return out
