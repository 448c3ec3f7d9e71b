"""A loss base on any config, whoever builds the runner, and what the run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner
from mmengine.structures import PixelData
from mmseg.apis import MMSegInferencer, init_model
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS, RUNNERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

import mmseg_recall
from mmseg_recall.models import rewrite
from mmseg_recall.stack import stock_script
from tests.tools.run import ROOT, run

BASES = ROOT / 'configs/_base_'
COLOURS = [[0, 0, 0], [9, 9, 9], [99, 99, 99]]
COUNTS = dict(classes=['a', 'b', 'c'], pixels=[900, 90, 10])
MODEL = """
default_scope = 'mmseg'
sync_bn = 'torch'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
    backbone=dict(
        type='ResNetV1c', depth=18, base_channels=2, stem_channels=2, num_stages=1,
        out_indices=(0,), strides=(1,), dilations=(1,)),
    decode_head=dict(
        type='FCNHead', in_channels=2, in_index=0, channels=2, num_convs=1, num_classes=3,
        loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
"""
OWN = 'class MyScenes:\n    pass\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder from which a user trains: a module of the project's own, and the pixel counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'my_scenes.py').write_text(OWN)
    (tmp_path / 'counts.json').write_text(json.dumps(COUNTS))
    monkeypatch.delitem(sys.modules, 'my_scenes', raising=False)
    return tmp_path


def config(folder: Path, own: str = '', loss: str = 'recall') -> Config:
    """A user's config with a loss base beside it, as it is read from its file."""
    (folder / 'my.py').write_text(f"{MODEL}\nwork_dir = '{folder}/work'\n{own}\n")
    bases = ['my.py', str(BASES / f'losses/{loss}.py')]
    (folder / 'config.py').write_text(f'_base_ = {bases}\n')
    return Config.fromfile(folder / 'config.py')


def dumped(cfg: Config) -> Path:
    """The config that a runner leaves in the work folder."""
    (path,) = Path(cfg.work_dir).glob('*.py')
    return path


def losses(runner: Runner) -> set[str]:
    return {type(m).__name__ for m in runner.model.modules() if hasattr(m, 'loss_name')}


OWN_KEYS = {
    'a module': "custom_imports = dict(imports=['my_scenes'], allow_failed_imports=False)",
    'a name alone': "custom_imports = dict(imports='my_scenes')",
    'a variable called loss_decode': "loss_decode = dict(type='CrossEntropyLoss')",
    'counts': 'class_counts = [900, 90, 10]',
    'nothing imported': 'custom_imports = None',
}


@pytest.mark.parametrize('own', OWN_KEYS.values(), ids=OWN_KEYS)
@pytest.mark.parametrize('loss', ['recall', 'recall_lovasz'])
def test_a_loss_base_collides_with_nothing(own, loss, project):
    cfg = config(project, own, loss=loss)
    runner = Runner.from_cfg(cfg)
    assert losses(runner) == {'RecallLoss'} | ({'LovaszSoftmaxLoss'} if '_' in loss else set())
    again = Config.fromfile(dumped(cfg))
    assert again.custom_imports.imports[-1] == 'mmseg_recall'
    assert ('my_scenes' in again.custom_imports.imports) == ('my_scenes' in own)
    assert rewrite(again).model == again.model


def test_the_projects_own_runner_trains_the_swapped_loss(project):
    own = 'class ProjectRunner(Runner):\n    pass\nRUNNERS.register_module(module=ProjectRunner)'
    text = f'from mmengine.runner import Runner\nfrom mmseg.registry import RUNNERS\n{own}\n'
    (project / 'my_runner.py').write_text(text)
    own = "custom_imports = dict(imports=['my_runner'])\nrunner_type = 'ProjectRunner'"
    runner = RUNNERS.build(config(project, own))
    assert type(runner).__name__ == 'ProjectRunner'
    assert losses(runner) == {'RecallLoss'}


@pytest.mark.parametrize('runner_class', [Runner, FlexibleRunner])
@pytest.mark.parametrize('kind', [Config, dict])
def test_whoever_builds_the_runner(runner_class, kind, project):
    cfg = config(project, 'env_cfg = dict()')
    runner = runner_class.from_cfg(cfg if kind is Config else dict(cfg))
    model = MODELS.build(runner.cfg.model)  # which FlexibleRunner does when it trains
    assert type(model.decode_head.loss_decode) is mmseg_recall.RecallLoss
    assert runner_class is FlexibleRunner or losses(runner) == {'RecallLoss'}


def test_configs_of_older_versions_train(project):
    cfg = config(project)
    cfg.pop('imbalance_loss')
    cfg.runner_type, cfg.loss_decode = 'LossRunner', dict(type='RecallLoss', momentum=0.9)
    runner = RUNNERS.build(cfg)
    assert runner.model.decode_head.loss_decode.momentum == 0.9
    again = Config.fromfile(dumped(cfg))
    assert again.imbalance_loss.type == 'RecallLoss'
    assert 'runner_type' not in again and 'loss_decode' not in again


CHILDREN = {
    'in the head': (
        "import mmseg_recall\nmodel = dict(decode_head=dict(type='FusedFCNHead',"
        " loss_decode=dict(_delete_=True, type='RecallLoss')))"
    ),
    'with counts': (
        'import mmseg_recall\nmodel = dict(decode_head=dict('
        "loss_decode=dict(_delete_=True, type='ClassBalancedLoss', class_counts='counts.json')))"
    ),
    'a hook': "import mmseg_recall\ncustom_hooks = [dict(type='ClassWeightHook')]",
}


@pytest.mark.parametrize('child', CHILDREN.values(), ids=CHILDREN)
def test_what_is_set_by_hand_is_imported_with_what_the_project_imports(child, project):
    (project / 'my.py').write_text(f"{MODEL}\nwork_dir = '{project}/work'\n{OWN_KEYS['a module']}")
    (project / 'config.py').write_text(f"_base_ = 'my.py'\n{child}\n")
    cfg = Config.fromfile('config.py')
    assert cfg.custom_imports.imports == ['my_scenes']
    Runner.from_cfg(cfg)
    assert Config.fromfile(dumped(cfg)).custom_imports.imports == ['my_scenes', 'mmseg_recall']


@pytest.mark.parametrize('by', ['command line', 'attribute', 'dump'])
def test_a_loss_that_is_set_after_reading(by, project):
    (project / 'my.py').write_text(f"{MODEL}\nwork_dir = '{project}/work'\n")
    cfg = Config.fromfile('my.py')
    if by == 'attribute':
        cfg.imbalance_loss = dict(type='RecallLoss')
    else:
        cfg.merge_from_dict({'imbalance_loss.type': 'RecallLoss'})
    if by == 'dump':  # as a tool does that starts the training of many configs
        cfg.dump('one.py')
        cfg = Config.fromfile('one.py')
        assert cfg.custom_imports.imports == ['mmseg_recall']
    assert losses(Runner.from_cfg(cfg)) == {'RecallLoss'}
    assert 'mmseg_recall' in Config.fromfile(dumped(cfg)).custom_imports.imports


READ = """
import sys
from mmengine.structures import PixelData
from mmseg.apis import MMSegInferencer, init_model
model = init_model(sys.argv[1], device='cpu')
print({type(m).__name__ for m in model.modules() if hasattr(m, 'loss_name')})
"""


@pytest.mark.parametrize('loss', ['recommended', 'balanced_softmax', 'recall_prior'])
def test_the_dumped_config_carries_the_counts(loss, project):
    cfg = config(project, "class_counts = 'counts.json'", loss=loss)
    Runner.from_cfg(cfg)
    moved = project / 'elsewhere.py'
    moved.write_text(dumped(cfg).read_text())
    (project / 'counts.json').unlink()
    again = Config.fromfile(moved)
    assert again.class_counts == COUNTS
    first = init_model(again, device='cpu').decode_head.loss_decode
    first = first[0] if isinstance(first, torch.nn.ModuleList) else first
    assert first.class_counts.tolist() == COUNTS['pixels']
    first.check_names(COUNTS['classes'])
    with pytest.raises(ValueError, match='class 2 is'):
        first.check_names(['a', 'b', 'x'])
    Runner.from_cfg(Config.fromfile(moved))


def test_a_dumped_config_is_read_where_nobody_imports_the_plugin(project):
    cfg = config(project, "class_counts = 'counts.json'", loss='recommended')
    Runner.from_cfg(cfg)
    output = run(sys.executable, '-c', READ, dumped(cfg), cwd=project)
    assert "'InverseFrequencyLoss'" in output and "'LovaszSoftmaxLoss'" in output


def test_without_counts_a_model_is_tested_but_not_trained(project):
    cfg = config(project, "class_counts = 'missing.json'", loss='inverse_frequency')
    runner = Runner.from_cfg(cfg)
    with pytest.raises(FileNotFoundError, match=r'missing\.json does not exist'):
        runner.train()
    # Nothing has taken the place of the loss for good.
    cfg = Config.fromfile(dumped(cfg))
    cfg.class_counts = COUNTS
    assert losses(Runner.from_cfg(cfg)) == {'InverseFrequencyLoss'}


PURE = """
from mmengine.config import read_base
from mmengine.visualization import LocalVisBackend
from mmseg.models import CrossEntropyLoss, EncoderDecoder, FCNHead, ResNetV1c, SegDataPreProcessor
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from mmseg_recall.losses import RecallLoss
{read}
default_scope = 'mmseg'
sync_bn = 'torch'
work_dir = '{work_dir}'
visualizer = dict(type=SegLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)], name='pure')
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, size=(32, 32)),
    backbone=dict(
        type=ResNetV1c, depth=18, base_channels=2, stem_channels=2, num_stages=1,
        out_indices=(0,), strides=(1,), dilations=(1,)),
    decode_head=dict(
        type=FCNHead, in_channels=2, in_index=0, channels=2, num_convs=1, num_classes=3,
        loss_decode={loss}),
    test_cfg=dict(mode='whole'))
"""


@pytest.mark.parametrize(
    ('loss', 'base'),
    [
        ('dict(type=RecallLoss)', None),
        ('[dict(type=RecallLoss), dict(type=CrossEntropyLoss)]', None),
        ('dict(type=CrossEntropyLoss)', 'recall'),
        ('dict(type=CrossEntropyLoss)', 'inverse_frequency_sqrt_lovasz'),
    ],
)
def test_pure_python_configs(loss, base, project):
    read = ''
    if base:
        (project / f'{base}.py').write_text((BASES / f'losses/{base}.py').read_text())
        read = f'with read_base():\n    from .{base} import *\nclass_counts = [900, 90, 10]'
    text = PURE.format(loss=loss, read=read, work_dir=project / 'work')
    (project / 'pure.py').write_text(text)
    cfg = Config.fromfile('pure.py')
    trained = losses(Runner.from_cfg(cfg))
    assert trained & {'RecallLoss', 'InverseFrequencyLoss'}
    again = Config.fromfile(dumped(cfg))
    assert losses(Runner.from_cfg(again)) == trained
    init_model(again, device='cpu')


def test_a_pure_python_loss_base(project):
    own = 'dict(type=CrossEntropyLoss)'
    text = PURE.format(loss=own, read='', work_dir=project / 'work')
    (project / 'pure.py').write_text(f'{text}imbalance_loss = [dict(type=RecallLoss)]\n')
    cfg = Config.fromfile('pure.py')
    assert losses(Runner.from_cfg(cfg)) == {'RecallLoss'}
    assert losses(Runner.from_cfg(Config.fromfile(dumped(cfg)))) == {'RecallLoss'}


def test_classes_in_a_config_of_a_notebook(project):
    cfg = config(project)
    cfg.model.type = EncoderDecoder
    cfg.model.decode_head.loss_decode = dict(type=mmseg_recall.RecallLoss)
    cfg.visualizer = dict(type=SegLocalVisualizer, vis_backends=None, name='notebook')
    Runner.from_cfg(cfg)
    again = Config.fromfile(dumped(cfg))
    assert again.visualizer.type == 'mmseg.visualization.local_visualizer.SegLocalVisualizer'
    assert losses(Runner.from_cfg(again)) == {'RecallLoss'}


@pytest.mark.parametrize('script', ['train.py', pytest.param('test.py', marks=pytest.mark.slow)])
def test_the_stock_script(script, project):
    """Up to the data, of which there are none: the runner is built, and has dumped its config."""
    own = 'train_cfg = test_cfg = train_dataloader = test_dataloader = test_evaluator = None'
    cfg = config(project, own)
    arguments = ['no.pth'] if script == 'test.py' else []
    command = [sys.executable, stock_script(script), 'config.py', *arguments]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert 'decode_head.loss_decode: CrossEntropyLoss -> RecallLoss' in done.stdout + done.stderr
    assert Config.fromfile(dumped(cfg)).model.decode_head.loss_decode.type == 'RecallLoss'


def test_what_asks_nothing_is_left_alone(project):
    (project / 'my.py').write_text(MODEL)
    cfg = Config.fromfile('my.py')
    assert rewrite(cfg) is cfg
    assert 'custom_imports' not in cfg


def head_config(folder: Path, loss: str = 'recall', **head) -> Config:
    cfg = config(folder, "class_counts = 'counts.json'", loss=loss)
    cfg.model.decode_head.update(head)
    return cfg


@pytest.mark.parametrize('loss', ['inverse_frequency', 'class_balanced', 'recall_prior'])
@pytest.mark.parametrize('counts', [COUNTS, COUNTS['pixels'], 'counts.json'])
@pytest.mark.parametrize('ignored', [0, 2])
def test_pixels_that_the_head_ignores_are_not_counted(loss, counts, ignored, project):
    cfg = head_config(project, loss, ignore_index=ignored)
    cfg.class_counts = counts
    kept = [n for c, n in enumerate(COUNTS['pixels']) if c != ignored]
    found = rewrite(cfg).model.decode_head.loss_decode.class_counts
    pixels = found if isinstance(counts, list) else found.pixels
    assert [n for n in pixels if n] == kept and pixels[ignored] == 0
    assert isinstance(counts, list) or found.classes == COUNTS['classes']


def test_the_weight_of_a_pixel_that_is_not_ignored(project):
    """Two classes are left, of 90 and 10 pixels; their weights are those of these two alone."""
    cfg = head_config(project, 'inverse_frequency', ignore_index=0)
    logits, target = torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 0], [1, 2]]])
    loss = MODELS.build(rewrite(cfg).model.decode_head.loss_decode)
    weights = torch.tensor([100 / (3 * 90), 100 / (3 * 10)])
    want = weights.mean() * torch.tensor(3.0).log()
    torch.testing.assert_close(loss(logits, target, ignore_index=0), want)


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(num_classes=300), r'model\.decode_head has 300 classes, and ignore_index=255 is one'),
        (dict(num_classes=256), 'has 256 classes'),
        (dict(num_classes=300, ignore_index=255), 'has 300 classes'),
        (dict(num_classes=1), r'model\.decode_head has one class, .* num_classes=2'),
        (dict(num_classes=1, out_channels=1), 'has one class'),
        (dict(num_classes=1, loss_decode=dict(type='RecallLoss')), 'has one class'),
    ],
)
def test_a_head_that_could_not_learn_its_classes_is_refused(head, message, project):
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(head_config(project, **head))


@pytest.mark.parametrize('head', [dict(num_classes=255), dict(num_classes=300, ignore_index=65535)])
def test_many_classes(head, project):
    assert losses(Runner.from_cfg(head_config(project, **head))) == {'RecallLoss'}


@pytest.mark.parametrize('loss', ['recall', 'recall_lovasz', 'ce', 'focal', 'soft_iou'])
def test_a_head_of_one_channel_trains(loss, project):
    binary = dict(type='CrossEntropyLoss', use_sigmoid=True)
    cfg = head_config(project, loss, num_classes=2, out_channels=1, loss_decode=binary)
    model = Runner.from_cfg(cfg).model
    label = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 2, (1, 32, 32))))
    total, _ = model.parse_losses(model.loss(torch.randn(2, 3, 32, 32), [label, label]))
    total.backward()
    assert total > 0 and model.decode_head.conv_seg.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('tau', [0.5, 2.0])
@pytest.mark.parametrize('by', ['file', 'command line', 'dump'])
def test_the_logits_are_adjusted_whoever_reads_the_config(tau, by, project):
    cfg = config(project, "class_counts = 'counts.json'")
    Path('adjusted.py').write_text(
        f"_base_ = ['config.py', '{BASES}/post_hoc/logit_adjustment.py']\n"
        f'logit_adjustment = dict(tau={tau})\n'
    )
    torch.manual_seed(0)
    stock = init_model(cfg, device='cpu').eval()
    torch.save(dict(state_dict=stock.state_dict(), meta={}), 'model.pth')
    read, options = 'adjusted.py', None
    if by == 'command line':
        read, options = 'config.py', {'logit_adjustment.tau': tau}
    elif by == 'dump':
        Runner.from_cfg(Config.fromfile(read))
        read = str(dumped(cfg))
        Path('counts.json').unlink()
    model = init_model(read, 'model.pth', device='cpu', cfg_options=options)
    image = torch.randn(1, 3, 32, 32)
    prior = torch.tensor(COUNTS['pixels']) / sum(COUNTS['pixels'])
    want = stock.encode_decode(image, [dict(img_shape=(32, 32))]) - tau * prior.log().view(3, 1, 1)
    got = model.encode_decode(image, [dict(img_shape=(32, 32))])
    torch.testing.assert_close(got, want)
    if options is None:
        pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
        needed = f'test_dataloader = dict(dataset=dict(pipeline={pipeline}))'
        needed += f"\nvisualizer = dict(type='SegLocalVisualizer', name='{project.name}')"
        Path('child.py').write_text(f"_base_ = '{read}'\n{needed}\n")
        inferencer = MMSegInferencer(
            'child.py', 'model.pth', classes=list('abc'), palette=COLOURS, device='cpu'
        )
        torch.testing.assert_close(inferencer.model.adjustment, model.adjustment)
