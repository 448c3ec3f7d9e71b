"""What is on a page, found by its kind."""

from __future__ import annotations

from typing import Any

from mmseg_recall.report.blocks import Claim, Section, Verdict
from mmseg_recall.report.figures import Plot
from mmseg_recall.report.questions import answers
from mmseg_recall.report.summary import Comparison


def of_kind(section: Section | None, kind: str) -> list[Any]:
    assert section is not None
    return [block for block in section.blocks if block.kind == kind]


def verdict_of(section: Section | None) -> Verdict:
    (verdict,) = of_kind(section, 'verdict')
    return verdict


def claims_of(section: Section | None) -> list[Claim]:
    return [claim for block in of_kind(section, 'claims') for claim in block.claims]


def plots_of(comparison: Comparison) -> dict[str, Plot]:
    """By the name of the file without the number."""
    sections = answers(comparison, [comparison])
    plots = [p for section in sections for block in of_kind(section, 'plots') for p in block.plots]
    return {plot.name.rpartition('-')[0]: plot for plot in plots}
