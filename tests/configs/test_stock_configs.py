"""No config that ships with mmseg is half swapped, and each refusal has its sentence."""

from collections import Counter

import pytest

from .stock_configs import MIXED, REFUSALS, SWAPPED, outcome, stock_configs

FOLDERS = {path.parent.name: path for path in reversed(stock_configs())}
REFUSED = {
    'fastscnn': 'its sigmoids score each class alone',
    'maskformer': 'classifies queries',
    'mask2former': 'classifies queries',
    'san': 'classifies queries',
    'vpd': 'predicts depth',
}


@pytest.mark.parametrize('base', ['recall', 'recommended'])
@pytest.mark.parametrize('folder', FOLDERS)
def test_one_config_of_each_method(folder, base):
    expected = [REFUSALS[REFUSED[folder]]] if folder in REFUSED else [SWAPPED, MIXED]
    assert outcome(FOLDERS[folder], base) in expected


@pytest.mark.slow
@pytest.mark.parametrize('base', ['recall', 'recommended'])
def test_every_config(base):
    counts = Counter(outcome(path, base) for path in stock_configs())
    assert sum(counts.values()) > 600
    # What is refused is a few methods; the ways to be refused are all in the table.
    assert counts[SWAPPED] + counts[MIXED] > 0.9 * sum(counts.values())
