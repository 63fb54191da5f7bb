"""Names of classes and videos are drawn as they are: no formula, no warning for a letter that the font lacks."""

import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.visualization.test_figure import scene
from tests.visualization.test_report import scores
from visualization import draw, report_figures
from visualization.plain_text import drawable
from visualization.score_summary import confusion_table

HOSTILE = ["$x^{$", r"$\frac{$ \\ %", "a\x1b[31mb\x00\n\x07", "日本語 \U0001f600", "half \udcff", "=1+1", "x" * 5000]


def texts(figure: Figure) -> list[str]:
    return [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_picture_takes_any_name(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = draw(*scene((0.0, 0.0)), title=name, subtitle=name, class_name=name, blocks=1)
    assert picture.shape == (1030, 1240, 3)


def test_the_figures_of_a_report_take_any_name() -> None:
    names = ["$x^{$", "日本語\x1b[2J", "half \udcff", "x" * 5000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (report_figures.confusion_figure, report_figures.classes_figure):
            figure = make(scores(classes=names))
            assert any("$x^{$" in text for text in texts(figure))
            assert report_figures.png(figure).startswith(b"\x89PNG")


def test_matplotlibs_own_settings_stay() -> None:
    before = matplotlib.rcParams["text.parse_math"], list(warnings.filters)
    draw(*scene((0.0, 0.0)), title="$", subtitle="$", class_name="$", blocks=1)
    assert (matplotlib.rcParams["text.parse_math"], list(warnings.filters)) == before


def test_printed_tables_have_no_escape_codes() -> None:
    for classes in (["\x1b[31mred", "b", "c", "d"], [f"\x1b]0;{i}\x07" for i in range(20)]):
        probabilities = np.full((6, 3, len(classes)), 0.01, np.float32)
        probabilities[:, :, 3] = 0.7
        assert confusion_table(scores(classes=classes, probabilities=probabilities)).replace("\n", "").isprintable()


def test_drawable_is_short() -> None:
    assert drawable("a\n b", 10) == "a b"
    assert drawable("abcdef", 4) == "abc…"
