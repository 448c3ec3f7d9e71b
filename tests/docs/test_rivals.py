"""The checks that other libraries' losses are put through, on ours."""

import re

import pytest

from benchmarks import rivals

from ..tools.run import ROOT


@pytest.mark.parametrize('check', rivals.PROPERTIES.values(), ids=rivals.PROPERTIES)
@pytest.mark.parametrize('loss', list(rivals.ours()), ids=lambda loss: loss.name)
def test_our_losses_have_every_property(loss, check):
    assert check(loss) is True


def test_the_checks_find_what_is_wrong():
    import torch

    plain = rivals.Rival('torch', 'CrossEntropyLoss', torch.nn.CrossEntropyLoss, True,
                         lambda: torch.nn.CrossEntropyLoss(reduction='none'))  # fmt: skip
    assert rivals.verdict(lambda: rivals.ignored_pixels_have_no_influence(plain)) == rivals.NO
    assert rivals.defaults_work(plain) is False


def test_the_chart_shows_the_figures_of_the_page():
    text = (ROOT / 'docs/rivals.md').read_text()
    tables = rivals.rows_of(text)
    assert list(tables) == list(rivals.LIBRARIES)
    assert ['CrossEntropyLoss', 'yes', '**no**', *['yes'] * 4, '-', '1.0'] in tables['torch']
    drawn = (ROOT / 'docs/images/rivals.svg').read_text()
    words = re.compile(r'>([^<>]+)</text>')
    assert words.findall(drawn) == words.findall(rivals.chart(text))
