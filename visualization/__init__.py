"""What a network looks at: explanation.py computes it, figure.py draws it, page.py makes an interactive page of it."""

from visualization.explanation import Attention, Explanation, explain
from visualization.figure import Moment, draw
from visualization.page import html_page

__all__ = ["Attention", "Explanation", "Moment", "draw", "explain", "html_page"]
