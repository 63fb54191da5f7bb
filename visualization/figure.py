"""The paper's figure 5 of a pair of frames: query, sampled points, motion saliency, offsets and Grad-CAM."""

from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from .explanation import Explanation, Grid
from .plain_text import drawable, plain_text

GROUND, INK, FAINT, QUERY = "#11141a", "#e8eaed", "#9aa3b0", "#39d5ff"
DPI = 100
_WIDTH, _HEIGHT = 12.4, 10.3  # inches
_OUTLINE = [patheffects.withStroke(linewidth=2.2, foreground="black")]

HEAT = "inferno"

#: Weights of one sign, and of both; the ground is dark, so that what is weak is dim and what is strong is bright.
ONE_SIGN = LinearSegmentedColormap.from_list("weights", ["#5b2a86", "#c2407d", "#f9844a", "#ffe66d"])
BOTH_SIGNS = LinearSegmentedColormap.from_list("signed", ["#4cc9f0", "#3a5a80", "#6b6b76", "#b0503f", "#ffd166"])


@dataclass(frozen=True)
class Moment:
    """A pair of feature frames of a clip as the network sees it, in a finer resolution.

    frame, following: uint8 (S', S', 3), RGB: frame t and frame t+1.
    size: S, pixels of the network's input, the unit of everything that is drawn.
    t: which pair. y, x: the query, in positions.
    """

    frame: np.ndarray
    following: np.ndarray
    size: int
    t: int
    y: int
    x: int


@plain_text()
def draw(moment: Moment, seen: Explanation, *, title: str, subtitle: str, class_name: str, blocks: int) -> np.ndarray:
    """Six panels as uint8 (H, W, 3), RGB.

    Args:
        title, subtitle, class_name: texts of users: nothing in them is read as a formula.
        blocks: how many SIFA blocks the stacked points go through.
    """
    figure = Figure((_WIDTH, _HEIGHT), dpi=DPI, facecolor=GROUND)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.018, 0.968, drawable(title, 70), color=INK, size=17, weight="bold", va="center")
    figure.text(0.018, 0.936, drawable(subtitle, 180), color=FAINT, size=10.5, va="center")
    layout = GridSpec(2, 3, figure, left=0.018, right=0.982, top=0.883, bottom=0.05, wspace=0.045, hspace=0.21)
    panels = [figure.add_subplot(layout[row, column]) for row in range(2) for column in range(3)]
    attention, grid, t = seen.attentions[-1], seen.grid, moment.t

    _picture(panels[0], moment.frame, moment.size, "Frame t: the query")
    place = f"row {moment.y}, column {moment.x} of {attention.saliency.shape[1]} x {attention.saliency.shape[2]}"
    panels[0].text(0, -0.06, f"query: {place}", color=FAINT, size=8.5, va="top", transform=panels[0].transAxes)
    _points(panels[1], moment, seen, 1, f"Frame t+1: its points in {attention.name}")
    if blocks > 1:
        _points(panels[2], moment, seen, blocks, f"Frame t+1: through {blocks} blocks")
    else:
        panels[2].set_axis_off()
    _picture(panels[3], moment.following, moment.size, "Motion saliency", dim=0.7)
    _heat(panels[3], attention.saliency[t], grid, "2 |sigmoid(f[t+1] − f[t]) − ½|")
    _picture(panels[4], moment.following, moment.size, "Offsets: where neighbourhoods move", dim=0.4)
    _arrows(panels[4], attention.offsets[t], grid)
    _picture(panels[5], moment.following, moment.size, f"Grad-CAM: what says “{drawable(class_name, 40)}”", dim=0.7)
    _heat(panels[5], seen.cam[t + 1], grid, "share of the largest in the clip", limit=1.0)
    for panel in (panels[0], *panels[3:]):
        _mark_query(panel, moment, grid)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _picture(panel: Axes, frame: np.ndarray, size: int, title: str, dim: float = 1.0) -> None:
    """A frame as the ground of a panel whose unit is the pixel of the network's input."""
    ground = (frame * dim).astype(np.uint8)
    panel.imshow(ground, extent=(-0.5, size - 0.5, size - 0.5, -0.5), interpolation="lanczos")
    panel.set_xlim(-0.5, size - 0.5)
    panel.set_ylim(size - 0.5, -0.5)
    panel.set_title(title, color=INK, size=11.5, loc="left", pad=7)
    panel.set_axis_off()


def _mark_query(panel: Axes, moment: Moment, grid: Grid) -> None:
    x, y = grid.pixels(np.array([moment.x, moment.y]))
    panel.plot(x, y, "+", color=QUERY, markersize=15, markeredgewidth=2.4, path_effects=_OUTLINE, clip_on=False)


def _points(panel: Axes, moment: Moment, seen: Explanation, blocks: int, title: str) -> None:
    """The points that reach the query through so many blocks, the heavier ones larger and on top."""
    points, weights = seen.stacked(moment.t, moment.y, moment.x, blocks)
    grid, taps = seen.grid, seen.attentions[-1].points.shape[1]
    _picture(panel, moment.following, moment.size, title, dim=0.55)
    y, x = grid.pixels(points).T
    count = f"{len(weights)} of {taps**blocks} contribute"
    # Between the border and where only zeros are sampled the panel has no room.
    shown = int(((x >= -0.5) & (x <= moment.size - 0.5) & (y >= -0.5) & (y <= moment.size - 0.5)).sum())
    count += "" if shown == len(weights) else f", {shown} in the picture"
    panel.text(0.015, 0.02, count, color=INK, size=9, path_effects=_OUTLINE, zorder=2.5, transform=panel.transAxes)
    largest = float(np.abs(weights).max(initial=0)) or 1.0
    signed = bool((weights < 0).any())
    colours: Colormap = BOTH_SIGNS if signed else ONE_SIGN
    norm = Normalize(-largest if signed else 0, largest)
    qx, qy = grid.pixels(np.array([moment.x, moment.y]))
    order = np.argsort(np.abs(weights))
    share = np.abs(weights[order]) / largest
    few = blocks == 1 and taps <= 25
    smallest, largest_size = (60, 220) if few else (16, 120) if len(weights) <= 200 else (8, 60)
    sizes = smallest + (largest_size - smallest) * share
    if few:
        panel.plot([np.full_like(x, qx), x], [np.full_like(y, qy), y], "-", color=QUERY, linewidth=0.9, alpha=0.45)
    panel.scatter(
        x[order],
        y[order],
        sizes,
        weights[order],
        cmap=colours,
        norm=norm,
        edgecolors="black",
        linewidths=0.8 if few else 0.4,
        zorder=3,
    )
    panel.plot(
        qx,
        qy,
        "o",
        markerfacecolor="none",
        color=QUERY,
        markersize=17,
        markeredgewidth=1.6,
        path_effects=_OUTLINE,
        clip_on=False,
    )
    legend = "attention weight ⟨query, key⟩ / C" if blocks == 1 else f"product of the weights of {blocks} blocks"
    _bar(panel, ScalarMappable(norm, colours), legend)


def _heat(panel: Axes, values: np.ndarray, grid: Grid, legend: str, limit: float | None = None) -> None:
    """A map over the frame, the more opaque the larger."""
    largest = limit or float(max(values.max(), 1e-12))
    padded = np.pad(values, 1, mode="edge")  # so that it reaches the borders
    edge = grid.start - 1.5 * grid.stride
    bottom, right = edge + grid.stride * np.array(padded.shape)
    norm = Normalize(0, largest)
    limits = panel.axis()
    panel.imshow(
        padded,
        cmap=HEAT,
        norm=norm,
        extent=(edge, right, bottom, edge),
        interpolation="bicubic",
        alpha=np.clip(0.15 + 0.7 * padded / largest, 0, 1),
    )
    panel.axis(limits)
    _bar(panel, ScalarMappable(norm, HEAT), legend)


def _arrows(panel: Axes, offsets: np.ndarray, grid: Grid) -> None:
    """The mean displacement of each neighbourhood, in its true length."""
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
    _bar(panel, ScalarMappable(norm, ONE_SIGN), "mean offset of the points, in pixels of the input")


def _bar(panel: Axes, colours: ScalarMappable, legend: str) -> None:
    bar = panel.inset_axes((0.0, -0.045, 1.0, 0.022))
    figure = panel.get_figure()
    assert figure is not None
    scale = figure.colorbar(colours, cax=bar, orientation="horizontal")
    scale.outline.set_visible(False)
    low, high = colours.get_clim()
    scale.set_ticks([])
    assert low is not None
    assert high is not None
    for value, place, side in ((low, 0.0, "left"), (high, 1.0, "right")):
        bar.text(place, -0.6, f"{value:.3g}", color=FAINT, size=8.5, ha=side, va="top", transform=bar.transAxes)
    bar.text(0.5, -0.6, legend, color=FAINT, size=8.5, ha="center", va="top", transform=bar.transAxes)
