"""Compare losses: train and test configs with each loss and seed, and record every run.

    python tools/benchmark.py configs/ce/deeplabv3_r18_camvid.py \\
        --losses ce recall inverse_frequency DiceLoss --seeds 0 1 2 --out work_dirs/camvid

Call it again after it was killed: complete runs are skipped, the others resume.
"""

import argparse
import glob
import signal
import sys
from pathlib import Path

from mmengine.config import DictAction

import mmseg_recall  # noqa: F401  (registers the losses)
from mmseg_recall.comparison import plan_runs, run_all
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
        '--cfg-options', nargs='+', action=DictAction, help='overrides of the config, as key=value'
    )
    args = parser.parse_args()
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
        )
        failures = run_all(plans, args.out, args.jobs)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f'{error}\n')
    if failures:
        listed = ''.join(f'\n  {name}: {reason}' for name, reason in failures.items())
        parser.exit(1, f'{len(failures)} of {len(plans)} runs failed:{listed}\n')


if __name__ == '__main__':
    main()
