"""The paper's own numbers, kept apart from ours and always labelled as the paper's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from .summary import Comparison

PAPER_NAMES = {
    'CE': 'CE',
    'SoftIoU': 'SoftIOU',
    'LovaszSoftmax': 'Lovasz',
    'InverseFrequency': 'Weighted',
    'ClassBalanced': 'Balanced',
    'OHEM': 'OHEM',
    'SoftmaxFocal': 'Focal',
    'Recall': 'Recall',
}
"""The paper's name of each loss that it compares, by our label."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        title: Which table, model and data set.
        notes: What the source text lost, and what does not add up in it.
        classes: The paper's name of each column's class, by our dataset class's name of it.
        minority: Names in the paper that it marks as minority.
        values: ``values['Acc'][loss][class]`` in per cent, by the paper's names; 'ave.' is the
            average that the paper prints. What cannot be recovered is not there.
    """

    title: str
    notes: list[str]
    classes: dict[str, str]
    minority: list[str]
    values: dict[str, dict[str, dict[str, float]]]


def paper_table(comparison: Comparison) -> PaperTable | None:
    """The paper's table for the data set of a comparison; None if it has none.

    The rendered mini scenes have SYNTHIA's classes but are not SYNTHIA, so they have none.
    """
    setup = comparison.setup
    return None if 'mini' in setup['data_root'] else paper_tables().get(setup['dataset'])


def paper_tables() -> dict[str, PaperTable]:
    """Tables 2 and 3, by the name of the data set without 'Dataset'."""
    data = json.loads((files(__package__) / 'paper_tables.json').read_text(encoding='utf-8'))
    return {name: PaperTable(**table) for name, table in data.items()}
