"""Text of users in pictures and tables: names are shown as they are, never read as a formula."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib

from common.errors import one_line

LONGEST = 120  # characters of a line


@contextmanager
def plain_text() -> Iterator[None]:
    """Figures that are made and drawn inside (also as a decorator) take no text for a formula or for TeX.

    Letters that the font lacks are drawn as boxes without a warning for each of them.
    """
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def drawable(text: str, most: int = LONGEST) -> str:
    """A text on one line of `most` characters at most, with escapes for what has no picture."""
    text = one_line(text)
    return text if len(text) <= most else text[: most - 1] + "…"
