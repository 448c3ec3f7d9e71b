"""Split the solar cells of ELPV, and write the feature maps that the configs of elpv train on."""

import argparse
from pathlib import Path

from mmengine.logging import MMLogger

from mmseg_recall.classification.datasets.elpv import convert_elpv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('raw', type=Path, help='folder with labels.csv and images')
    parser.add_argument(
        '--weights', type=Path, default=Path('checkpoints/efficientnet_lite0.pth'),
        help='what tools/model_converters/efficientnet_lite0.py writes',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, default=Path('data/elpv'), help='folder to make')
    args = parser.parse_args()
    # The stack says what a backbone gives.
    MMLogger.get_current_instance().setLevel('WARNING')
    try:
        convert_elpv(args.raw, args.weights, args.out)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    print(f'{args.out} is complete')


if __name__ == '__main__':
    main()
