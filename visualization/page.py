"""A page to explore a clip: frame t under the pointer, the sampled points of frame t+1. One file, nothing is loaded."""

import base64
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from common.errors import one_line

from .explanation import Attention, Explanation
from .figure import BOTH_SIGNS, HEAT, ONE_SIGN

_STOPS = 9  # colours of a scale, between which the page interpolates


def html_page(
    frames: np.ndarray,
    positions: Sequence[int],
    size: int,
    seen: Sequence[Explanation],
    opening: tuple[int, int, int],
    *,
    title: str,
    class_name: str,
) -> str:
    """The page as HTML. visualization/page.html says how it looks and behaves; here are its data.

    Args:
        frames: uint8 (T, S', S', 3), RGB, of the clip's T feature frames.
        positions: (T,), which frames of the video these are.
        size: S, pixels of the network's input.
        seen: of each stage to choose from.
        opening: t, y and x of the query that is shown at first, in positions of the first stage.
    """
    data = {
        "size": size,
        "className": class_name,
        "opening": opening,
        "frames": [_jpeg(frame) for frame in frames],
        "positions": list(positions),
        "stages": [_stage(one) for one in seen],
        "colours": {
            name: [to_hex(matplotlib.colormaps.get_cmap(scale)(stop)) for stop in np.linspace(0, 1, _STOPS)]
            for name, scale in (("oneSign", ONE_SIGN), ("bothSigns", BOTH_SIGNS), ("heat", HEAT))
        },
    }
    # "</script>" in a name would end the data.
    packed = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    values = {"title": html.escape(one_line(title)), "data": packed}
    # In one pass: a title may contain "{{data}}".
    return re.sub(r"\{\{(title|data)\}\}", lambda place: values[place[1]], text)


def _stage(seen: Explanation) -> dict[str, Any]:
    return {
        "name": seen.stage,
        "stride": seen.grid.stride,
        "start": seen.grid.start,
        "shape": seen.cam.shape[1:],
        "cam": _bytes(seen.cam, 1.0),
        "blocks": [_block(attention, seen) for attention in seen.attentions],
    }


def _block(attention: Attention, seen: Explanation) -> dict[str, Any]:
    """Whole numbers, position by position and tap by tap: points in tenths of a pixel, weights in thousandths."""
    pixels = seen.grid.pixels(attention.points).transpose(0, 3, 4, 1, 2)[..., ::-1]  # (T-1, H, W, k*k, (x, y))
    largest = float(np.abs(attention.weights).max()) or 1.0
    weights = attention.weights.transpose(0, 2, 3, 1) / largest
    # Whatever is far outside is outside; the limit keeps numbers short and NaN, which samples nothing, out.
    points = np.nan_to_num(np.clip(pixels, -999, 9999), nan=-999)
    moving = float(attention.saliency.max()) or 1.0
    return {
        "name": attention.name,
        "taps": attention.points.shape[1],
        "largest": largest,
        "signed": bool((weights < 0).any()),
        "points": [np.rint(10 * pair).astype(int).ravel().tolist() for pair in points],
        "weights": [np.rint(1000 * pair).astype(int).ravel().tolist() for pair in weights],
        "saliency": _bytes(attention.saliency, moving),
        "moving": moving,
    }


def _bytes(maps: np.ndarray, largest: float) -> list[list[int]]:
    return [np.rint(255 * one / largest).astype(int).ravel().tolist() for one in maps]


def _jpeg(frame: np.ndarray) -> str:
    encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
