"""Render mini street scenes into the layout of a raw SYNTHIA-SEQS sequence."""

import argparse
from pathlib import Path

from mmseg_recall.datasets.mini_scenes import write_mini_scenes


def size(text: str) -> tuple[int, int]:
    width, height = text.lower().split('x')
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('data/synthia-mini-raw'))
    parser.add_argument('--frames', type=int, default=40, help='one frame is 8 images')
    parser.add_argument('--size', type=size, default='384x192', metavar='WxH', help='in pixels')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    try:
        write_mini_scenes(args.out, args.frames, *args.size, args.seed)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')


if __name__ == '__main__':
    main()
