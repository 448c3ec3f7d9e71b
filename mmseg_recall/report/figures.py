"""The plots, as SVG text that follows the page's colours.

Ink and grid are drawn in two marker colours, which are replaced afterwards: by CSS variables for
the page (light and dark), by fixed colours on white for the files that Markdown shows.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..statistics import Estimate
from .summary import Comparison

INK, GRID = '#010203', '#040506'
MAX_LABEL = 30
LINE = 80
MIN_SCALE = 0.6
COLOURS = {'CE': '#7d8590', 'Recall': '#d64550'}
OTHER_COLOURS = (
    *('#2f81c7', '#e08a00', '#1f9e89', '#9a5bd0', '#5d9732'),
    *('#c9529b', '#b08d57', '#00a0c6', '#8c6d9e', '#6f7f2f'),
)
MARKERS = 'osD^vPX<>*hpd'
STYLE = {
    # A class or a loss may have a dollar sign in its name.
    'text.parse_math': False,
    'svg.fonttype': 'none',
    'font.family': 'sans-serif',
    'font.size': 9,
    'text.color': INK,
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.titlesize': 9,
    'grid.color': GRID,
    'grid.linewidth': 0.6,
    'xtick.color': INK,
    'ytick.color': INK,
    'legend.frameon': False,
    'legend.fontsize': 8,
    'figure.facecolor': 'none',
    'axes.facecolor': 'none',
    'savefig.transparent': True,
}


@dataclass(frozen=True)
class Plot:
    """A plot: file name, heading, what it shows for those who cannot see it, and SVG."""

    name: str
    caption: str
    alt: str
    svg: str

    @property
    def inline(self) -> str:
        """For the page: scales with it and takes its colours."""
        svg = self.svg[self.svg.index('<svg') :].replace(INK, 'currentColor')
        svg = svg.replace(GRID, 'var(--grid)')
        # Those that matplotlib gives to every group would be double on a page of several plots.
        used = set(re.findall(r'#([\w.-]+)', svg))
        svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else '', svg)
        svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', svg, count=1)

        def sized(match: re.Match[str]) -> str:
            width = float(match[2])
            # Below the minimum its text could not be read: then it scrolls.
            style = f'max-width:{width:.0f}pt;min-width:{MIN_SCALE * width:.0f}pt'
            return f'<svg{match[1]} role="img" aria-label="{escape(self.alt)}" style="{style}"'

        return re.sub(r'<svg([^>]*?) width="([0-9.]+)pt"', sized, svg, count=1)

    @property
    def file(self) -> str:
        """For a file: dark ink on white."""
        svg = self.svg.replace(INK, '#1f2328').replace(GRID, '#d8dde3')
        background = '<rect width="100%" height="100%" fill="#fff"/>'
        return re.sub(r'(<svg[^>]*?>)', rf'\1{background}', svg, count=1)


def plot(figure: Figure, comparison: Comparison, name: str, caption: str, alt: str) -> Plot:
    """The figure as SVG; its file is named after the comparison's place on the page, too."""
    name = f'{name}-{comparison.number}'
    buffer = io.StringIO()
    # A salt of its own: the ids of all plots share one page.
    with matplotlib.rc_context({'svg.hashsalt': name}):
        figure.savefig(
            buffer, format='svg', metadata={'Date': None, 'Creator': None}, bbox_inches='tight'
        )
    # Hundredths of a point cannot be seen, and a page has all of its plots inside. Text stands
    # between the tags, and is not cut.
    svg = re.sub(r'<[^>]+>', lambda tag: re.sub(r'(\d\.\d\d)\d+', r'\1', tag[0]), buffer.getvalue())
    return Plot(name, caption, alt, svg)


def subplots(
    rows: int, columns: int, width: float, height: float, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def legend(figure: Figure, place: str, columns: int = 4) -> None:
    """Outside the axes; labels with options get lines of their own and fewer columns."""
    handles, labels = next(
        (handles, labels)
        for handles, labels in (axis.get_legend_handles_labels() for axis in figure.axes)
        if labels
    )
    width = min(max(map(len, labels)), MAX_LABEL)
    figure.legend(  # type: ignore[call-overload]
        handles,
        [fill(label, MAX_LABEL) for label in labels],
        loc=f'outside {place}',
        ncols=min(columns, LINE // width),
    )


def bars(found: Sequence[Estimate]) -> np.ndarray:
    """Down and up from each mean to the ends of its interval, (2, n); 0 where it has none."""
    ends = np.array([one.interval() for one in found]).T
    return np.nan_to_num(np.abs(ends - [one.mean for one in found]))


def span(found: Sequence[Estimate], others: Sequence[float] = ()) -> tuple[float, float]:
    """What an axis shows: the means and ``others``, and of intervals half as much on either side.

    Two seeds may have intervals of any length, which would leave nothing to see of the means.
    """
    means = np.array([one.mean for one in found if not math.isnan(one.mean)] + list(others))
    ends = np.concatenate([np.array([one.interval() for one in found]).ravel(), means])
    room = max(1.0, 0.5 * float(np.ptp(means)))
    low = max(float(np.nanmin(ends)), float(means.min()) - room)
    high = min(float(np.nanmax(ends)), float(means.max()) + room)
    return low - 0.1 * room, high + 0.1 * room


def styles(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Colour and marker of each loss, the same in every plot."""
    free = iter(OTHER_COLOURS * len(comparison.losses))
    return {
        loss.label: {
            'color': COLOURS.get(loss.label) or next(free),
            'marker': MARKERS[i % len(MARKERS)],
        }
        for i, loss in enumerate(comparison.losses)
    }
