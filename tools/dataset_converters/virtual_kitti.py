"""Convert Virtual KITTI 2 to mmseg's layout; a killed run is completed by running it again."""

import argparse
from pathlib import Path

from mmseg_recall.datasets.convert_virtual_kitti import convert_virtual_kitti


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'raw',
        type=Path,
        help='where vkitti_2.0.3_rgb.tar and vkitti_2.0.3_classSegmentation.tar were unpacked',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('data/virtual-kitti'), help='folder to make'
    )
    args = parser.parse_args()
    try:
        convert_virtual_kitti(args.raw, args.out)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    print(f'{args.out} is complete')


if __name__ == '__main__':
    main()
