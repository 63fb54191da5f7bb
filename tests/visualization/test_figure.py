"""The picture shows points where they are, in the colour of their weight."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from models.network import Grid
from visualization import Attention, Explanation, Moment, draw, figure
from visualization.figure import BOTH_SIGNS, ONE_SIGN, QUERY

SIZE, SIDE, STRIDE = 64, 8, 8


def scene(
    offset: tuple[float, float], weights: tuple[float, ...] = (1.0,), blocks: int = 1
) -> tuple[Moment, Explanation]:
    """White frames and one block whose taps all look at the query (2, 3) displaced by an offset, y and x."""
    places = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")).astype(float)
    offsets = np.broadcast_to(np.array(offset)[:, None, None], (1, len(weights), 2, SIDE, SIDE))
    attention = Attention(
        "block 2",
        places + offsets,
        offsets,
        np.broadcast_to(np.array(weights)[:, None, None], (1, len(weights), SIDE, SIDE)),
        np.full((1, SIDE, SIDE), 0.2),
    )
    seen = Explanation("res3", Grid(STRIDE, 0.0), [attention] * blocks, 1, 0.75, np.zeros((2, SIDE, SIDE)))
    white = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    return Moment(white, white, SIZE, t=0, y=2, x=3), seen


def picture(offset: tuple[float, float], weights: tuple[float, ...] = (1.0,), blocks: int = 1) -> np.ndarray:
    moment, seen = scene(offset, weights, blocks)
    return draw(moment, seen, title="walk", subtitle="a.mp4", class_name="walk", blocks=blocks)


def coloured(pixels: np.ndarray, colour: object) -> np.ndarray:
    """Rows and columns (n, 2) of the pixels of a colour."""
    wanted = np.round(255 * np.array(to_rgb(colour)))  # type: ignore[arg-type]
    return np.argwhere(np.abs(pixels.astype(int) - wanted).max(2) <= 2)


def panel(pixels: np.ndarray, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """A sixth of the picture, and the upper left and lower right corner of the dimmed frame in it."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 3
    part = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
    frame = coloured(part, "#8c8c8c")  # 0.55 of white
    return part, np.array([frame.min(0), frame.max(0)])


def test_a_point_is_where_it_samples() -> None:
    part, (first, last) = panel(picture((1.5, 2.25)), 0, 1)
    # The colour of the largest weight, in the frame alone: the legend has it too.
    found = coloured(part, ONE_SIGN(1.0))
    found = found[(found > first).all(1) & (found < last).all(1)]
    place = (found.mean(0) - first) / (last - first) * SIZE - 0.5
    np.testing.assert_allclose(place, [STRIDE * (2 + 1.5), STRIDE * (3 + 2.25)], atol=0.7)


def test_the_query_is_marked() -> None:
    pixels = picture((3.0, 3.0))
    part = pixels[: pixels.shape[0] // 2, : pixels.shape[1] // 3]
    frame = coloured(part, "white")
    first, last = frame.min(0), frame.max(0)
    place = (coloured(part, QUERY).mean(0) - first) / (last - first) * SIZE - 0.5
    np.testing.assert_allclose(place, [STRIDE * 2, STRIDE * 3], atol=0.7)


def test_weights_of_both_signs_have_a_scale_of_their_own() -> None:
    part, _ = panel(picture((1.0, 1.0), weights=(-1.0, 0.5)), 0, 1)
    assert len(coloured(part, BOTH_SIGNS(0.0))) > 20
    assert len(coloured(part, ONE_SIGN(0.0))) == 0


def test_nothing_is_stacked_on_a_single_block() -> None:
    one, two = picture((1.0, 1.0)), picture((1.0, 1.0), blocks=2)
    corner = (slice(0, one.shape[0] // 2), slice(2 * one.shape[1] // 3 + 10, None))
    assert len(np.unique(one[corner].reshape(-1, 3), axis=0)) == 1, "the panel is empty"
    assert len(np.unique(two[corner].reshape(-1, 3), axis=0)) > 100


def test_the_count_is_of_what_contributes_and_of_what_is_drawn() -> None:
    """A map's row or column is 8 pixels, the border half a pixel above and left of the first ones."""
    counts = {}
    for rows in (-2.0, -2.05, -2.5, -3.0):
        panel = Figure().add_subplot()
        figure._points(panel, *scene((rows, 0.0), weights=(1.0, 0.5)), 1, "title")
        counts[rows] = panel.texts[0].get_text()
    assert counts == {
        -2.0: "2 of 2 contribute",
        -2.05: "2 of 2 contribute",
        -2.5: "2 of 2 contribute, 0 in the picture",
        -3.0: "0 of 2 contribute",
    }


def test_grad_cam_is_of_the_frame_that_has_it_and_scaled_to_what_is_there() -> None:
    moment, seen = scene((1.0, 1.0))
    texts = {}
    for name, frame in (("t", 0), ("t+1", 1), ("none", 0)):
        seen.cam[:] = 0
        seen.cam[frame, 4, 4] = 0.0 if name == "none" else 0.25
        panel = Figure().add_subplot()
        figure._class_map(panel, moment, seen, "walk")
        written = [*panel.texts, *(text for bar in panel.child_axes for text in bar.texts)]
        texts[name] = [panel.get_title(loc="left"), *(text.get_text() for text in written)]
    scale = ["0", "0.25", "share of the largest in the clip"]
    assert texts["t"] == ["Grad-CAM, frame t: for “walk”", *scale]
    assert texts["t+1"] == ["Grad-CAM, frame t+1: for “walk”", *scale]
    assert texts["none"][1:] == ["nothing in these two frames"]


def test_a_heat_map_begins_at_its_least_value() -> None:
    panel = Figure().add_subplot()
    figure._picture(panel, np.zeros((SIZE, SIZE, 3), np.uint8), SIZE, "title")
    figure._heat(panel, np.linspace(0.2, 0.3, 64).reshape(8, 8), Grid(STRIDE, 0.0), "motion")
    assert panel.images[-1].get_clim() == (0.2, 0.3)
    assert [text.get_text() for text in panel.child_axes[0].texts] == ["0.2", "0.3", "motion"]


def test_points_outside_are_not_drawn() -> None:
    part, _ = panel(picture((20.0, 0.0)), 0, 1)
    rows = coloured(part, ONE_SIGN(1.0))[:, 0]
    assert len(rows) == 0 or rows.max() - rows.min() < 20, "the legend alone"
