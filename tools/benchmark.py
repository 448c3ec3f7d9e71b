"""Compare losses: train and test configs with each loss and seed, and record every run.

    python tools/benchmark.py configs/ce/deeplabv3_r18_camvid.py \\
        --losses ce recall inverse_frequency DiceLoss --seeds 0 1 2 --out work_dirs/camvid

Call it again after it was killed: complete runs are skipped, the others resume.
"""

import argparse
import glob
import signal
import sys
from functools import partial
from pathlib import Path

from mmengine.config import DictAction

import mmseg_recall  # noqa: F401  (registers the losses)
from mmseg_recall.comparison import plan_runs, run_all, run_frozen, tune
from mmseg_recall.comparison.plan import CHECKPOINT_RULES

LOSSES = Path(__file__).resolve().parents[1] / 'configs' / '_base_' / 'losses'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', help='configs, or quoted globs of them')
    parser.add_argument(
        '--losses',
        nargs='+',
        default=[],
        help='losses to put into each config: names of configs/_base_/losses, paths of other such '
        "files, or types of registered losses; default: the config's own",
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='default: 0')
    parser.add_argument('--out', type=Path, required=True, help='folder of the comparison')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time, default: 1')
    parser.add_argument(
        '--checkpoint',
        choices=CHECKPOINT_RULES,
        default='last',
        help='which checkpoint of every run is tested, default: last',
    )
    parser.add_argument(
        '--frozen',
        type=int,
        default=0,
        metavar='VIEWS',
        help='train the heads only, on features of so many augmented views of each training image',
    )
    parser.add_argument(
        '--tune',
        nargs='+',
        type=float,
        metavar='LR',
        help='learning rates of which each loss gets the one that is best on the validation images',
    )
    parser.add_argument(
        '--budget',
        type=int,
        help='training iterations, or epochs, of all trials of a loss by --tune',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides of the config, as key=value'
    )
    args = parser.parse_args()
    if (args.tune is None) != (args.budget is None):
        parser.error('--tune and --budget need each other')
    if args.frozen and args.jobs != 1:
        parser.error('--frozen trains one head after the other: leave out --jobs')
    run = run_frozen if args.frozen else partial(run_all, jobs=args.jobs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    configs = [
        path
        for name in args.configs
        for path in ([name] if Path(name).exists() else sorted(glob.glob(name)) or [name])
    ]
    try:
        plans = plan_runs(
            configs,
            args.losses,
            args.seeds,
            losses_dir=LOSSES,
            checkpoint=args.checkpoint,
            cfg_options=args.cfg_options,
            frozen=args.frozen,
        )
        if args.tune:
            plans = tune(plans, args.out, args.tune, args.budget, run)
        failures = run(plans, args.out)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f'{error}\n')
    if failures:
        listed = ''.join(f'\n  {name}: {reason}' for name, reason in failures.items())
        parser.exit(1, f'{len(failures)} of {len(plans)} runs failed:{listed}\n')


if __name__ == '__main__':
    main()
