"""The questions that a report answers: one file a question. Nobody edits a list.

A file has ``ORDER``, its place on the page, and

    def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None

which gives the section of one of the page's comparisons, or None where it has nothing to say.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import matplotlib

from ..blocks import Section
from ..figures import STYLE
from ..summary import Comparison


def answers(comparison: Comparison, comparisons: list[Comparison]) -> list[Section]:
    """The sections of one comparison, in the order of the page."""
    questions = [import_module(f'{__name__}.{module.name}') for module in iter_modules(__path__)]
    questions.sort(key=lambda question: question.ORDER)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        found = [question.answer(comparison, comparisons) for question in questions]
    return [section for section in found if section is not None]
