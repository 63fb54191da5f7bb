"""What a network looks at: explanation.py reads it off, figure.py draws it, page.py makes a page to explore."""

from .explanation import Attention, Explanation, explain, stages_with_sifa
from .figure import Moment, draw
from .page import html_page

__all__ = ["Attention", "Explanation", "Moment", "draw", "explain", "html_page", "stages_with_sifa"]
