"""The page computes what Python does, with pointer, keys and controls, in headless Chromium and without a network."""

import copy
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import moving_square
from tests.visualization.test_explanation import network
from visualization import Explanation, explain, html_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZE, PAIRS = 96, 3
OPENING = 1, 8, 3  # t, y, x
STAGES = ("res3", "res4")


@pytest.fixture(scope="module")
def seen() -> list[Explanation]:
    clip = torch.randn(1, 3, 4 * (PAIRS + 1), SIZE, SIZE)
    return [explain(network(), clip, stage, label=1) for stage in STAGES]


def make(seen: list[Explanation], title: str = "v.mp4") -> str:
    frames = moving_square(PAIRS + 1, SIZE, SIZE)
    return html_page(frames, [2, 6, 10, 14], SIZE, seen, OPENING, title=title, class_name="</script><b>")


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def text(seen: list[Explanation]) -> str:
    return make(seen, title="<i>v</i>.mp4")


def test_it_is_one_file_and_names_do_no_harm(text: str) -> None:
    assert not re.search(r"https?:|<link(?! rel=\"icon\" href=\"data:)|src=|url\(|import\(|fetch\(", text)
    assert text.count("<script") == text.count("</script>") == 2
    assert "<h1>&lt;i&gt;v&lt;/i&gt;.mp4</h1>" in text
    assert "{{" not in text


def test_a_title_is_no_place_for_data(seen: list[Explanation]) -> None:
    text = make(seen, title="{{data}} {{title}}")
    assert "<h1>{{data}} {{title}}</h1>" in text
    assert data_of(text)["size"] == SIZE


def test_its_numbers_are_those_of_the_network(text: str, seen: list[Explanation]) -> None:
    data = data_of(text)
    assert (data["positions"], data["className"], len(data["frames"])) == ([2, 6, 10, 14], "</script><b>", PAIRS + 1)
    for stage, one in zip(data["stages"], seen, strict=True):
        for block, attention in zip(stage["blocks"], one.attentions, strict=True):
            shape = (PAIRS, *stage["shape"], block["taps"])
            weights = np.reshape(block["weights"], shape) / 1000 * block["largest"]
            np.testing.assert_allclose(
                weights.transpose(0, 3, 1, 2), attention.weights, atol=block["largest"] / 1000, rtol=0
            )
            points = np.reshape(block["points"], (*shape, 2)) / 10
            pixels = stage["start"] + stage["stride"] * attention.points[:, :, ::-1]
            np.testing.assert_allclose(points.transpose(0, 3, 4, 1, 2), pixels, atol=0.0501, rtol=0)


def test_what_is_not_a_number_is_outside(seen: list[Explanation]) -> None:
    one = copy.deepcopy(seen[0])
    one.attentions[0].points[0, 0, 0, 0, 0] = np.nan  # y of the first tap
    assert data_of(make([one]))["stages"][0]["blocks"][0]["points"][0][1] == -9990


# ---- In a browser ---------------------------------------------------------------------------------------------------


def browse(text: str, script: str, folder: Path) -> str:
    """What the page tells after a script has acted on it."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    file = folder / "page.html"
    file.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000", "--virtual-time-budget=2000"]
    done = subprocess.run(
        [BROWSER, *options, f"--user-data-dir={folder}/profile", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<output[^>]*>(.*?)</output>", done.stdout, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


def told(one: Explanation, t: int, y: int, x: int, blocks: int) -> str:
    """The beginning of what the page must tell about a query, from the Python side."""
    points, weights = one.stacked(t, y, x, blocks)
    pixels = one.grid.pixels(points)
    shown = int(((pixels >= -0.5) & (pixels <= SIZE - 0.5)).all(1).sum())
    taps = one.attentions[-1].points.shape[1]
    height, width = one.cam.shape[1:]
    start = f"Query at column {x}, row {y} of {one.stage}'s {width} × {height} positions: "
    count = f"{len(weights)} of {taps**blocks} points contribute"
    return start + count + (f", {shown} in the picture" if shown < len(weights) else "")


def heaviest(said: str) -> float:
    found = re.search(r"the heaviest weighs ([-\d.e+]+),", said)
    assert found is not None, said
    return float(found[1])


def check(said: str, one: Explanation, t: int, y: int, x: int, blocks: int = 1) -> None:
    assert said.startswith(told(one, t, y, x, blocks)), said
    weights = one.stacked(t, y, x, blocks)[1]
    assert heaviest(said) == pytest.approx(weights[np.abs(weights).argmax()], rel=0.02)


def test_it_opens_as_asked(text: str, seen: list[Explanation], tmp_path: Path) -> None:
    check(browse(text, "", tmp_path), seen[0], *OPENING)


def point_at(y: int, x: int, kind: str = "pointermove") -> str:
    """A pointer over the middle of a position of res3, whose positions are 8 pixels apart, 0 at the first pixel."""
    return f"""
        {{ const canvas = document.getElementById("now"), box = canvas.getBoundingClientRect();
          canvas.dispatchEvent(new PointerEvent("{kind}", {{
            clientX: box.left + ({x} * 8 + 0.5) / {SIZE} * box.width,
            clientY: box.top + ({y} * 8 + 0.5) / {SIZE} * box.height, bubbles: true }})); }}"""


def set_to(control: str, value: int | str, kind: str) -> str:
    return f"""
        {{ const control = document.getElementById("{control}"); control.value = "{value}";
          control.dispatchEvent(new Event("{kind}", {{ bubbles: true }})); }}"""


def press(*keys: str) -> str:
    return "".join(
        f'document.getElementById("now").dispatchEvent(new KeyboardEvent("keydown", {{ key: "{key}" }}));'
        for key in keys
    )


def test_pointer_touch_and_keys_choose_the_query(text: str, seen: list[Explanation], tmp_path: Path) -> None:
    t = OPENING[0]
    check(browse(text, point_at(7, 4), tmp_path), seen[0], t, 7, 4)
    check(browse(text, point_at(2, 9, "pointerdown"), tmp_path), seen[0], t, 2, 9)
    moved = point_at(7, 4) + press("ArrowUp", "ArrowUp", "ArrowRight", "Enter")
    check(browse(text, moved, tmp_path), seen[0], t, 5, 5)


def test_controls_choose_pair_block_and_depth(text: str, seen: list[Explanation], tmp_path: Path) -> None:
    there = set_to("t", 2, "input") + point_at(5, 6)
    check(browse(text, there, tmp_path), seen[0], 2, 5, 6)
    check(browse(text, there + set_to("depth", 2, "change"), tmp_path), seen[0], 2, 5, 6, blocks=2)
    # The fifth block of the list is res4's last; its positions are twice as far apart, so (6, 4) becomes (3, 2).
    res4 = set_to("t", 0, "input") + point_at(6, 4) + set_to("block", 4, "change") + set_to("depth", 3, "change")
    check(browse(text, res4, tmp_path), seen[1], 0, 3, 2, blocks=3)


def test_maps_behind_the_points(text: str, tmp_path: Path) -> None:
    """Each draws other pixels, and is told."""
    pixels = """
        const canvas = document.getElementById("next");
        const sum = () => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
            .reduce((a, b, i) => (a * 31 + b) % 1000003, 7);
        const sums = [];
        const choice = document.getElementById("behind");
        window.addEventListener("load", () => {
          for (const option of choice.options) {
            choice.value = option.value;
            choice.dispatchEvent(new Event("change"));
            sums.push(sum());
          }
          document.getElementById("readout").textContent += " " + new Set(sums).size + " different";
        });"""
    said = browse(text, pixels, tmp_path)
    assert said.endswith("Grad-CAM of </script><b>. 4 different")
