"""Convert a dataset to mmseg's layout; a killed run is completed by running it again."""

import argparse
from pathlib import Path

from mmseg_recall.datasets.convert import convert_dataset, converters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name', choices=converters(), help='of the dataset')
    parser.add_argument('raw', type=Path, help='what was downloaded: see docs/datasets.md')
    parser.add_argument('--out', type=Path, help='folder to make; default: data/NAME')
    args = parser.parse_args()
    out = args.out or Path('data', args.name)
    try:
        convert_dataset(args.name, args.raw, out)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    print(f'{out} is complete')


if __name__ == '__main__':
    main()
