"""All runs are built before the first one trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_recall.comparison import run_all
from mmseg_recall.comparison.plan import Plan, plan_runs
from tests.comparison.test_plan import LOSSES
from tests.comparison.test_real_runs import CONFIG, write_data

# Options of a config, and what is said of a run that has them.
BROKEN = {
    'counts': ('inverse_frequency', dict(class_counts='nowhere.json'), 'nowhere.json'),
    'length': ('inverse_frequency', dict(class_counts=[1, 2, 3]), '3 classes'),
    'option': ('focal', {'imbalance_loss.gama': 2}, 'gama'),
    'sampler': (
        'soft_iou',
        {'model.decode_head.sampler': dict(type='OHEMPixelSampler', thresh=0.7)},
        'weight',
    ),
    'head': ('recall', {'model.decode_head.type': 'NoHead'}, 'NoHead'),
    'checkpoint': ('recall', dict(load_from='lost.pth'), 'load_from=lost.pth'),
    'data': ('recall', {'train_dataloader.dataset.data_root': 'lost'}, 'lost'),
    'optimiser': ('recall', {'optim_wrapper.type': 'NoWrapper'}, 'NoWrapper'),
    'metric': ('recall', {'test_evaluator.worst': [0]}, 'worst'),
    'hook': ('recall', dict(custom_hooks=[dict(type='NoHook')]), 'NoHook'),
}


def plans_of(folder: Path) -> list[Plan]:
    write_data(folder / 'data')
    base = CONFIG.format(root=str(folder / 'data'))
    plans = []
    for name, (loss, options, _) in {'good': ('recall', {}, ''), **BROKEN}.items():
        path = folder / f'{name}.py'
        path.write_text(base)
        seeds = (0, 1, 2)
        plans += plan_runs([str(path)], [loss], seeds, losses_dir=LOSSES, cfg_options=options)
    return plans


@pytest.mark.slow
def test_what_cannot_start_is_named_before_anything_starts(tmp_path):
    plans, out = plans_of(tmp_path), tmp_path / 'out'
    words = f'{len(BROKEN)} of {len(BROKEN) + 1} configs cannot'
    with pytest.raises(ValueError, match=words) as caught:
        run_all(plans, out)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith('and nothing was started:')
    told = {line.strip().partition('_')[0]: line for line in lines if '_seed0: ' in line}
    assert told.keys() == BROKEN.keys()
    for name, (_, _, words) in BROKEN.items():
        assert words in told[name]
    assert not out.exists()


def test_a_config_that_ends_its_process_is_an_error(tmp_path):
    (tmp_path / 'exits.py').write_text('import os\nos._exit(3)\n')
    config = Config(dict(custom_imports=dict(imports=['exits']), imbalance_loss=dict(type='A')))
    plan = Plan('a', 'a.py', config.dump(), 0, 'last')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
        with pytest.raises(ValueError, match='The runs cannot be built'):
            run_all([plan], tmp_path / 'out')
