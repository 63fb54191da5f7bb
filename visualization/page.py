"""An interactive page for a clip: a query in frame t under the pointer, its sampled points in frame t+1.

The page is one self-contained file and loads nothing from elsewhere.
"""

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
from models.network import Grid
from visualization.explanation import Attention, Explanation
from visualization.figure import BOTH_SIGNS, HEAT, ONE_SIGN

_STOPS = 9  # colours of a scale; the page interpolates between them


def html_page(
    frames: np.ndarray,
    positions: Sequence[int],
    size: int,
    explanations: Sequence[Explanation],
    opening: tuple[int, int, int],
    *,
    title: str,
    class_name: str,
) -> str:
    """The page as HTML: visualization/page.html, its layout and behaviour, filled with the data of a clip.

    Args:
        frames: uint8 (T, S', S', 3), RGB, of the clip's T feature frames.
        positions: (T,), numbers of these frames in the video.
        size: S, side of the network's input in pixels.
        explanations: one for each stage that the page offers.
        opening: t, y and x of the query that the page shows first, in positions of the first stage.
        title: of the page.
        class_name: of the class that Grad-CAM is about.
    """
    data = {
        "size": size,
        "className": class_name,
        "opening": opening,
        "frames": [_jpeg(frame) for frame in frames],
        "positions": list(positions),
        "stages": [_stage(explanation) for explanation in explanations],
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


def _stage(explanation: Explanation) -> dict[str, Any]:
    return {
        "name": explanation.stage,
        "stride": explanation.grid.stride,
        "start": explanation.grid.start,
        "shape": explanation.cam.shape[1:],
        "cam": _bytes(explanation.cam, 1.0),
        "blocks": [_block(attention, explanation.grid) for attention in explanation.attentions],
    }


def _block(attention: Attention, grid: Grid) -> dict[str, Any]:
    """The data of a block as integers, position by position and tap by tap.

    Points are in tenths of a pixel, weights in thousandths of the largest.
    """
    pixels = grid.pixels(attention.points).transpose(0, 3, 4, 1, 2)[..., ::-1]  # (T-1, H, W, k*k, (x, y))
    largest = float(np.abs(attention.weights).max()) or 1.0
    weights = attention.weights.transpose(0, 2, 3, 1) / largest
    # How far outside a point is does not matter: limits keep the numbers short. NaN, too, samples nothing.
    points = np.nan_to_num(np.clip(pixels, -999, 9999), nan=-999)
    largest_saliency = float(attention.saliency.max()) or 1.0
    return {
        "name": attention.name,
        "taps": attention.points.shape[1],
        "largest": largest,
        "signed": bool((weights < 0).any()),
        "points": [np.rint(10 * pair).astype(int).ravel().tolist() for pair in points],
        "weights": [np.rint(1000 * pair).astype(int).ravel().tolist() for pair in weights],
        "saliency": _bytes(attention.saliency, largest_saliency),
        "moving": largest_saliency,
    }


def _bytes(maps: np.ndarray, largest: float) -> list[list[int]]:
    """Maps (T, H, W) in [0, largest] as integers in [0, 255], row by row."""
    return [np.rint(255 * values / largest).astype(int).ravel().tolist() for values in maps]


def _jpeg(frame: np.ndarray) -> str:
    """A frame uint8 (H, W, 3), RGB, as a data URL."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
