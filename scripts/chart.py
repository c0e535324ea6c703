"""How the project's charts look, whatever they show; matplotlib draws them."""

from typing import Any, Final

INK, PALE, GRID = "#1f2430", "#7a8190", "#e4e7ec"
BLUE, GREY, ORANGE, GREEN, RED, PURPLE = (
    *("#1f5fa8", "#9aa3b0", "#d98032"),
    *("#2e8540", "#b3262e", "#6b4fa0"),
)
DPI: Final = 130
EXTRA: Final = "pip install -c constraints.txt -e '.[engine,benchmark]'"
"""What brings matplotlib, and LitServe."""

STYLE: Final[Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "legend.frameon": False,
}
"""For ``matplotlib.rc_context``."""
