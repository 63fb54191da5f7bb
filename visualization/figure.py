"""The paper's figure 5 for a pair of frames: query, sampled points, motion saliency, offsets and Grad-CAM."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from models.network import Grid
from visualization.explanation import Explanation
from visualization.plain_text import drawable, plain_text

BACKGROUND, TEXT, FAINT_TEXT, QUERY = "#11141a", "#e8eaed", "#9aa3b0", "#39d5ff"
DPI = 100
_WIDTH, _HEIGHT = 12.4, 10.3  # inches
_OUTLINE = [patheffects.withStroke(linewidth=2.2, foreground="black")]

HEAT = "inferno"

#: For weights of one sign, and of both. On the dark background small weights are dim and large ones bright.
ONE_SIGN = LinearSegmentedColormap.from_list("weights", ["#5b2a86", "#c2407d", "#f9844a", "#ffe66d"])
BOTH_SIGNS = LinearSegmentedColormap.from_list("signed", ["#4cc9f0", "#3a5a80", "#6b6b76", "#b0503f", "#ffd166"])


@dataclass(frozen=True)
class Moment:
    """A pair of feature frames of a clip as the network sees it, in a finer resolution, and a query.

    Args:
        frame: frame t, uint8 (S', S', 3), RGB.
        following: frame t+1, likewise.
        size: S, side of the network's input in pixels, the unit of everything that is drawn.
        t: which pair of the clip.
        y: row of the query, in positions.
        x: column of the query, in positions.
    """

    frame: np.ndarray
    following: np.ndarray
    size: int
    t: int
    y: int
    x: int


@plain_text()
def draw(
    moment: Moment, explanation: Explanation, *, title: str, subtitle: str, class_name: str, blocks: int
) -> np.ndarray:
    """Draws the six panels of a query.

    Args:
        moment: the frames and the query.
        explanation: of the clip, in the stage that is drawn.
        title: the first line.
        subtitle: the second line.
        class_name: of the class that Grad-CAM is about.
        blocks: how many SIFA blocks the stacked points go through; with 1 that panel stays empty.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    figure = Figure((_WIDTH, _HEIGHT), dpi=DPI, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.018, 0.968, drawable(title, 70), color=TEXT, size=17, weight="bold", va="center")
    figure.text(0.018, 0.936, drawable(subtitle, 180), color=FAINT_TEXT, size=10.5, va="center")
    layout = GridSpec(2, 3, figure, left=0.018, right=0.982, top=0.883, bottom=0.05, wspace=0.045, hspace=0.21)
    panels = [figure.add_subplot(layout[row, column]) for row in range(2) for column in range(3)]
    attention, grid, t = explanation.attentions[-1], explanation.grid, moment.t

    _picture(panels[0], moment.frame, moment.size, "Frame t: the query")
    query = f"row {moment.y}, column {moment.x} of {attention.saliency.shape[1]} x {attention.saliency.shape[2]}"
    panels[0].text(0, -0.06, f"query: {query}", color=FAINT_TEXT, size=8.5, va="top", transform=panels[0].transAxes)
    _points(panels[1], moment, explanation, 1, f"Frame t+1: its points in {attention.name}")
    if blocks > 1:
        _points(panels[2], moment, explanation, blocks, f"Frame t+1: through {blocks} blocks")
    else:
        panels[2].set_axis_off()
    _picture(panels[3], moment.following, moment.size, "Motion saliency", dim=0.7)
    _heat(panels[3], attention.saliency[t], grid, "2 |sigmoid(f[t+1] − f[t]) − ½|")
    _picture(panels[4], moment.following, moment.size, "Offsets: where neighbourhoods move", dim=0.4)
    _arrows(panels[4], attention.offsets[t], grid)
    _class_map(panels[5], moment, explanation, drawable(class_name, 32))
    for panel in (panels[0], *panels[3:]):
        _mark_query(panel, moment, grid)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _picture(panel: Axes, frame: np.ndarray, size: int, title: str, dim: float = 1.0) -> None:
    """Draws a frame as the background of a panel whose unit is the pixel of the network's input."""
    background = (frame * dim).astype(np.uint8)
    panel.imshow(background, extent=(-0.5, size - 0.5, size - 0.5, -0.5), interpolation="lanczos")
    panel.set_xlim(-0.5, size - 0.5)
    panel.set_ylim(size - 0.5, -0.5)
    panel.set_title(title, color=TEXT, size=11.5, loc="left", pad=7)
    panel.set_axis_off()


def _mark_query(panel: Axes, moment: Moment, grid: Grid) -> None:
    x, y = grid.pixels(np.array([moment.x, moment.y]))
    panel.plot(x, y, "+", color=QUERY, markersize=15, markeredgewidth=2.4, path_effects=_OUTLINE, clip_on=False)


def _points(panel: Axes, moment: Moment, explanation: Explanation, blocks: int, title: str) -> None:
    """Draws the points that reach the query through the last `blocks` blocks; larger weights are larger and on top."""
    points, weights = explanation.stacked(moment.t, moment.y, moment.x, blocks)
    grid, taps = explanation.grid, explanation.attentions[-1].points.shape[1]
    _picture(panel, moment.following, moment.size, title, dim=0.55)
    y, x = grid.pixels(points).T
    _count(panel, y, x, of=taps**blocks, size=moment.size)
    largest = float(np.abs(weights).max(initial=0)) or 1.0
    signed = bool((weights < 0).any())
    colours: Colormap = BOTH_SIGNS if signed else ONE_SIGN
    norm = Normalize(-largest if signed else 0, largest)
    query_x, query_y = grid.pixels(np.array([moment.x, moment.y]))
    order = np.argsort(np.abs(weights))
    share = np.abs(weights[order]) / largest
    few = blocks == 1 and taps <= 25
    smallest, largest_size = (60, 220) if few else (16, 120) if len(weights) <= 200 else (8, 60)
    sizes = smallest + (largest_size - smallest) * share
    if few:
        from_x, from_y = np.full_like(x, query_x), np.full_like(y, query_y)
        panel.plot([from_x, x], [from_y, y], "-", color=QUERY, linewidth=0.9, alpha=0.45)
    style: dict[str, Any] = {"edgecolors": "black", "linewidths": 0.8 if few else 0.4, "zorder": 3}
    panel.scatter(x[order], y[order], sizes, weights[order], cmap=colours, norm=norm, **style)
    style = {"markersize": 17, "markeredgewidth": 1.6, "path_effects": _OUTLINE, "clip_on": False}
    panel.plot(query_x, query_y, "o", markerfacecolor="none", color=QUERY, **style)
    legend = "attention weight ⟨query, key⟩ / C" if blocks == 1 else f"product of the weights of {blocks} blocks"
    _colour_bar(panel, ScalarMappable(norm, colours), legend)


def _count(panel: Axes, y: np.ndarray, x: np.ndarray, *, of: int, size: int) -> None:
    """Writes into a panel how many points contribute, and how many of these the picture shows."""
    text = f"{len(x)} of {of} contribute"
    # A panel ends at the frame's border; points sample zeros only from one position outside it.
    shown = int(((x >= -0.5) & (x <= size - 0.5) & (y >= -0.5) & (y <= size - 0.5)).sum())
    text += "" if shown == len(x) else f", {shown} in the picture"
    _note(panel, text)


def _note(panel: Axes, text: str) -> None:
    """Writes a line into the lower left corner of a panel."""
    panel.text(0.015, 0.02, text, color=TEXT, size=9, path_effects=_OUTLINE, zorder=2.5, transform=panel.transAxes)


def _class_map(panel: Axes, moment: Moment, explanation: Explanation, class_name: str) -> None:
    """Draws what speaks for a class in frame t or t+1, where there is more of it."""
    first, second = explanation.cam[moment.t], explanation.cam[moment.t + 1]
    cam, frame, name = (second, moment.following, "t+1") if second.max() >= first.max() else (first, moment.frame, "t")
    _picture(panel, frame, moment.size, f"Grad-CAM, frame {name}: for “{class_name}”", dim=0.7)
    if cam.max() > 0:
        _heat(panel, cam, explanation.grid, "share of the largest in the clip", low=0.0)
    else:
        _note(panel, "nothing in these two frames")


def _heat(panel: Axes, values: np.ndarray, grid: Grid, legend: str, low: float | None = None) -> None:
    """Draws a map over the frame, large values more opaque. Its colours reach from `low`, or its least value, up."""
    low, high = float(values.min()) if low is None else low, float(values.max())
    padded = np.pad(values, 1, mode="edge")  # so that the map reaches the borders of the frame
    edge = grid.start - 1.5 * grid.stride
    bottom, right = edge + grid.stride * np.array(padded.shape)
    norm = Normalize(low, max(high, low + 1e-12))
    limits = panel.axis()
    panel.imshow(
        padded,
        cmap=HEAT,
        norm=norm,
        extent=(edge, right, bottom, edge),
        interpolation="bicubic",
        alpha=np.clip(0.15 + 0.7 * np.asarray(norm(padded)), 0, 1),
    )
    panel.axis(limits)
    _colour_bar(panel, ScalarMappable(norm, HEAT), legend)


def _arrows(panel: Axes, offsets: np.ndarray, grid: Grid) -> None:
    """Draws the mean displacement of each neighbourhood, true to scale."""
    mean = offsets.mean(0) * grid.stride  # (2, H, W), pixels
    height, width = mean.shape[1:]
    y, x = np.meshgrid(grid.pixels(np.arange(height)), grid.pixels(np.arange(width)), indexing="ij")
    length = np.hypot(*mean)
    norm = Normalize(0, max(float(length.max()), 1e-12))
    panel.quiver(
        x,
        y,
        mean[1],
        mean[0],
        length,
        angles="xy",
        scale_units="xy",
        scale=1,
        cmap=ONE_SIGN,
        norm=norm,
        width=0.008,
        headwidth=3.6,
        headlength=4.2,
        edgecolor="black",
        linewidth=0.5,
        pivot="tail",
    )
    _colour_bar(panel, ScalarMappable(norm, ONE_SIGN), "mean offset of the points, in pixels of the input")


def _colour_bar(panel: Axes, colours: ScalarMappable, legend: str) -> None:
    """Draws a scale of colours with its ends and a legend below a panel."""
    bar = panel.inset_axes((0.0, -0.045, 1.0, 0.022))
    figure = panel.get_figure()
    assert figure is not None
    scale = figure.colorbar(colours, cax=bar, orientation="horizontal")
    scale.outline.set_visible(False)
    low, high = colours.get_clim()
    scale.set_ticks([])
    assert low is not None
    assert high is not None
    for value, position, side in ((low, 0.0, "left"), (high, 1.0, "right")):
        bar.text(position, -0.6, f"{value:.3g}", color=FAINT_TEXT, size=8.5, ha=side, va="top", transform=bar.transAxes)
    bar.text(0.5, -0.6, legend, color=FAINT_TEXT, size=8.5, ha="center", va="top", transform=bar.transAxes)
