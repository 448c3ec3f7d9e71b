"""Count the pixels of each class in a config's training set, for the losses that need them.

Of a config of mmpretrain, the images of each class.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mmseg_recall  # noqa: F401  (registers the datasets)
from mmseg_recall.config import is_classification
from mmseg_recall.datasets.class_statistics import write_class_statistics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config whose train_dataloader.dataset is counted')
    parser.add_argument('--out', type=Path, help="JSON file; default: the config's class_counts")
    parser.add_argument(
        '--allow-evaluation-files',
        action='store_true',
        help='count even if training reads files of the validation or test split',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides of the config, as key=value'
    )
    args = parser.parse_args()
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options or {})
        path = _write(config, args)
    except (OSError, ValueError, SyntaxError) as error:
        parser.exit(1, f'{error}\n')
    statistics = json.loads(path.read_text())
    Console().print(table(statistics))
    for message in statistics.get('warnings', []):
        print(f'Warning: {message}')
    print(path)


def table(statistics: dict[str, Any]) -> Table:
    """Shares of pixels and images, in per cent; of a classification dataset, of images."""
    pixels, ignored = statistics['pixels'], statistics.get('ignored', 0)
    images = statistics.get('class_images')
    columns = ['class', 'pixels %', 'images %'] if images else ['class', 'images %']
    shown = Table(*columns, title=f'{statistics["images"]} images for training')
    total = max(sum(pixels) + ignored, 1)
    for c, name in enumerate(statistics['classes']):
        shares = [pixels[c] / total, *([images[c] / statistics['images']] if images else [])]
        shown.add_row(escape(name), *(f'{100 * share:.3g}' for share in shares))
    if images:
        shown.add_row('(ignored)', f'{100 * ignored / total:.3g}', '')
    return shown


def _write(config: Config, args: argparse.Namespace) -> Path:
    if not is_classification(config):
        return write_class_statistics(config, args.out, args.allow_evaluation_files)
    from mmseg_recall.classification.datasets import class_statistics

    return class_statistics.write_class_statistics(config, args.out)


if __name__ == '__main__':
    main()
