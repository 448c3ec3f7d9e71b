"""The code in the pages runs, and does what the page says."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_recall import InverseFrequencyLoss
from mmseg_recall.datasets.class_statistics import class_statistics

from ..tools.run import ROOT

BLOCK = re.compile(r'^( *)```python\n(.*?)^ *```', re.DOTALL | re.MULTILINE)
PAGES = ['README.md', 'docs/quickstart.md', 'docs/how-to.md', 'docs/two-classes.md']


def blocks(page: str) -> list[str]:
    return [textwrap.dedent(code) for _, code in BLOCK.findall((ROOT / page).read_text())]


def is_config(code: str) -> bool:
    return code.startswith(('_base_', 'class_counts'))


@pytest.mark.parametrize('page', PAGES)
def test_code_runs_in_the_order_of_the_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'annotations').mkdir()
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    Image.fromarray(mask).save('annotations/a.png')
    names: dict[str, object] = {}
    ran = [exec(code, names) for code in blocks(page) if not is_config(code)]
    assert ran
    if page == 'docs/how-to.md':
        assert (np.asarray(Image.open('annotations/a.png')) == mask // 255).all()


def test_weights_that_the_page_shows():
    loss = InverseFrequencyLoss(class_counts=[598_170, 138_030, 1_080], exponent=0.5)
    assert f'loss.weight  # {loss.weight.float()}' in (ROOT / 'docs/how-to.md').read_text()


def test_own_dataset_is_made_read_and_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, config = blocks('docs/your-own-dataset.md')[:2]
    exec(make, {})
    (tmp_path / 'garden.py').write_text(config.replace('mmseg_recall::', f'{ROOT}/configs/'))
    statistics = class_statistics(Config.fromfile('garden.py'))
    assert statistics['classes'] == ['field', 'path', 'stone']
    shares = np.array(statistics['pixels']) / sum(statistics['pixels'])
    assert [f'{share:.1%}' for share in shares] == ['80.6%', '18.5%', '0.8%']


@pytest.mark.parametrize('page', [*PAGES, 'docs/your-own-dataset.md'])
def test_bases_that_a_page_names_exist(page):
    named = re.findall(r'mmseg_recall::([\w/.-]+\.py)', (ROOT / page).read_text())
    assert all((ROOT / 'configs' / name).is_file() for name in named)
    assert named
