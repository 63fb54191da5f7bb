"""Predictions as text."""

import torch

from sifa.prediction_text import table, timeline, top
from sifa.windows import Window


def test_the_timeline() -> None:
    def window(start: int, probabilities: list[float]) -> Window:
        return Window(start, start + 20, torch.tensor(probabilities))

    windows = [window(0, [0.9, 0.1]), window(10, [0.6, 0.4]), window(600, [0.25, 0.75])]
    assert timeline(windows, ["walk", "run"], rate=10) == "\n".join(
        [
            "   0:00.0 -   0:02.0  walk   90.00 %",
            "   0:01.0 -   0:03.0  walk   60.00 %",
            "   1:00.0 -   1:02.0  run    75.00 %",
            "",
            "  walk  ██·",
            "  run   ··█",
        ]
    )
    long = timeline([*windows[:1] * 181, *windows[2:] * 119], ["walk", "run"], rate=10).splitlines()
    assert [line.split()[-1] for line in long[-2:]] == ["█" * 37 + "·" * 23, "·" * 36 + "█" * 24]


def test_names_have_no_escape_codes() -> None:
    classes, probabilities = ["\x1b[31mred\n", "b"], torch.tensor([0.9, 0.1])
    assert table(top(probabilities, classes, 2)).splitlines()[0].startswith("   90.00 %  \\x1b[31mred  █")
    assert timeline([Window(0, 20, probabilities)], classes, rate=10).replace("\n", "").isprintable()
