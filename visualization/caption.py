"""A line of text as a picture, to stand above others."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visualization.plain_text import drawable, plain_text

HEIGHT = 18  # pixels
_LETTER = 6.5  # pixels that a letter takes, about


@plain_text()
def caption(text: str, width: int) -> np.ndarray:
    """A dark line with a text, which is cut where there is no room: uint8 (HEIGHT, width, 3)."""
    figure = Figure((width / 100, HEIGHT / 100), dpi=100, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    shown = drawable(text, max(1, int(width / _LETTER)))
    figure.text(2 / width, 0.5, shown, color="white", size=8, va="center_baseline")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:HEIGHT, :width, :3].copy()
