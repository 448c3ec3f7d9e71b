"""Train one model with cross-entropy and with RecallLoss on the mini street scenes; compare them.

Renders the scenes, converts them, counts their classes, trains and tests with the stock scripts,
and prints one table and the path of one picture. Both models have the same data, seed, schedule
and checkpoint rule (the last one).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules
from PIL import Image
from rich.console import Console
from rich.table import Table

import mmseg_recall  # noqa: F401  (registers the dataset)
from mmseg_recall.diagnosis.advice import RARE
from mmseg_recall.evaluation import PerClassIoUMetric
from mmseg_recall.out_folder import claim, write_manifest

matplotlib.use('Agg')
from matplotlib import pyplot as plt

TOOLS = Path(__file__).parent
CONFIGS = TOOLS.parent / 'configs'
LOSSES = ('ce', 'recall')


class Scores(NamedTuple):
    """Per-class accuracy and IoU over the test set, shape (C,), NaN where a class is absent."""

    accuracy: np.ndarray
    iou: np.ndarray


def config_path(loss: str) -> Path:
    return CONFIGS / loss / 'deeplabv3_r18_synthia-mini.py'


def run(title: str, log: Path, *command: str | Path) -> None:
    """Run a Python script; show its progress here and keep all of its output in ``log``."""
    print(f'\n== {title} (full log: {log})', flush=True)
    start, tail = time.monotonic(), ''
    log.parent.mkdir(parents=True, exist_ok=True)
    # Threads that wait by spinning make a machine that does something else besides crawl.
    env = {'OMP_WAIT_POLICY': 'PASSIVE', **os.environ}
    with (
        log.open('w') as file,
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        ) as process,
    ):
        for line in process.stdout:
            file.write(line)
            tail = (tail + line)[-3000:]
            if 'Iter(train)' in line or ('Iter(test)' in line and 'mIoU' in line):
                print(line.partition('INFO - ')[2], end='', flush=True)
    if process.returncode:
        sys.exit(f'{tail}\n{title} failed with exit status {process.returncode}; see {log}')
    print(f'{title}: {time.monotonic() - start:.0f} s', flush=True)


def prepare_data(logs: Path) -> None:
    """Render and convert the scenes unless that is done, and count their classes."""
    raw, out = Path('data/synthia-mini-raw'), Path('data/synthia-mini')
    # The converter makes its folder under this name only once it is complete.
    if not out.is_dir():
        run('Rendering', logs / 'render.log', TOOLS / 'render_mini_scenes.py', '--out', raw)
        convert = TOOLS / 'convert_dataset.py', 'synthia', raw, '--out', out
        run('Converting', logs / 'convert.log', *convert)
    run('Counting', logs / 'count.log', TOOLS / 'class_statistics.py', config_path('recall'))


def train_and_test(loss: str, work_dir: Path, options: list[str]) -> Path:
    """Train and test one loss with the stock scripts.

    Returns:
        The folder of the predicted label images.
    """
    folder, config = work_dir / loss, config_path(loss)
    train = TOOLS / 'train.py', config, '--work-dir', folder
    run(f'Training with {loss}', folder / 'train.log', *train, '--cfg-options', *options)
    checkpoint = (folder / 'last_checkpoint').read_text().strip()
    predictions = folder / 'predictions'
    test = TOOLS / 'test.py', config, checkpoint, '--work-dir', folder / 'test'
    options = ['--out', str(predictions), '--cfg-options', *options]
    run(f'Testing {loss}', folder / 'test.log', *test, *options)
    return predictions


def load_prediction(folder: Path, image: str) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(folder / f'{Path(image).stem}.png')))


def load_label(dataset, index: int) -> torch.Tensor:
    return dataset[index]['data_samples'].gt_sem_seg.data.squeeze(0)


def score(dataset, predictions: Path) -> Scores:
    """Score saved predictions as mmseg's IoUMetric does."""
    num_classes = len(dataset.metainfo['classes'])
    areas = [
        PerClassIoUMetric.intersect_and_union(
            load_prediction(predictions, info['img_path']),
            load_label(dataset, index),
            num_classes,
            dataset.ignore_index,
        )
        for index, info in enumerate(dataset.load_data_list())
    ]
    metrics = PerClassIoUMetric.total_area_to_metrics(*map(sum, zip(*areas, strict=True)), ['mIoU'])
    return Scores(accuracy=metrics['Acc'], iou=metrics['IoU'])


def make_table(classes: tuple[str, ...], share: np.ndarray, scores: dict[str, Scores]) -> Table:
    """One row a class in order of frequency, then the means; all in per cent."""
    table = Table(title='Mini street scenes, test split (per cent; pixels: of the training split)')
    table.add_column('class')
    table.add_column('pixels', justify='right')
    for quantity in ('acc.', 'IoU'):
        for loss in LOSSES:
            table.add_column(f'{quantity} {loss}', justify='right')

    def row(name: str, share_text: str, mask: np.ndarray) -> None:
        means = [np.nanmean(scores[loss].accuracy[mask]) for loss in LOSSES]
        means += [np.nanmean(scores[loss].iou[mask]) for loss in LOSSES]
        table.add_row(name, share_text, *(f'{100 * mean:.1f}' for mean in means))

    indices = np.arange(len(classes))
    order = np.argsort(-share)
    for index in order:
        row(classes[index], f'{100 * share[index]:.2f}', indices == index)
    table.add_section()
    row('all (mAcc, mIoU)', '', indices >= 0)
    row(f'rare (below {100 * RARE:g}%)', '', share < RARE)
    return table


def draw(dataset, predictions: dict[str, Path], rare: np.ndarray, path: Path) -> str:
    """Draw image, truth and predictions of the test image with the most pixels of rare classes.

    Returns:
        The chosen image's file name.
    """
    rare_ids = torch.from_numpy(np.flatnonzero(rare))
    rare_pixels = [
        int(torch.isin(load_label(dataset, i), rare_ids).sum()) for i in range(len(dataset))
    ]
    index = int(np.argmax(rare_pixels))
    image = dataset.load_data_list()[index]['img_path']
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(dataset.metainfo['palette'])] = dataset.metainfo['palette']
    panels = {'image': np.array(Image.open(image).convert('RGB'))}
    panels['truth'] = palette[load_label(dataset, index).numpy()]
    panels |= {loss: palette[load_prediction(predictions[loss], image)] for loss in LOSSES}

    figure, axes = plt.subplots(2, 2, figsize=(12, 7), layout='constrained')
    for axis, (title, pixels) in zip(axes.flat, panels.items(), strict=True):
        axis.imshow(pixels, interpolation='nearest')
        axis.set_title(title)
        axis.axis('off')
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=palette[i] / 255, label=name)
        for i, name in enumerate(dataset.metainfo['classes'])
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return Path(image).name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', type=int, default=1337, help='of weights and order of images')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='more overrides of the configs, as key=value'
    )
    args = parser.parse_args()
    try:
        write_manifest(args.work_dir, claim(args.work_dir, 'demo'))
    except OSError as error:
        parser.exit(1, f'{error}\n')
    prepare_data(args.work_dir)
    options = [f'randomness.seed={args.seed}', *args.cfg_options]
    predictions = {loss: train_and_test(loss, args.work_dir, options) for loss in LOSSES}

    register_all_modules()
    config = Config.fromfile(config_path('recall'))
    dataset = DATASETS.build(config.test_dataloader.dataset)
    pixels = np.array(json.loads(Path(config.class_counts).read_text())['pixels'])
    share = pixels / pixels.sum()
    scores = {loss: score(dataset, folder) for loss, folder in predictions.items()}
    Console().print(make_table(dataset.metainfo['classes'], share, scores))
    picture = args.work_dir / 'comparison.png'
    name = draw(dataset, predictions, share < RARE, picture)
    print(f'Picture (the test image with the most rare-class pixels, {name}): {picture}')


if __name__ == '__main__':
    main()
