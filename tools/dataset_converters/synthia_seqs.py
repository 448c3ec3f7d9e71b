"""Convert SYNTHIA-SEQS to mmseg's layout; a killed run is completed by running it again."""

import argparse
from pathlib import Path

from mmseg_recall.datasets.convert_synthia import convert_synthia_seqs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'raw', type=Path, help='folder of one raw sequence, with RGB/ and GT/LABELS/'
    )
    parser.add_argument('--out', type=Path, default=Path('data/synthia'), help='folder to make')
    args = parser.parse_args()
    try:
        convert_synthia_seqs(args.raw, args.out)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    print(f'{args.out} is complete')


if __name__ == '__main__':
    main()
