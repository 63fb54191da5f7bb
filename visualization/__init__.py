"""What a network looks at: explain.py reads it off, figure.py draws it, page.py makes a page to explore."""

from .explain import Attention, Explanation, explain, stages_with_sifa
from .figure import Moment, draw
from .page import page

__all__ = ["Attention", "Explanation", "Moment", "draw", "explain", "page", "stages_with_sifa"]
