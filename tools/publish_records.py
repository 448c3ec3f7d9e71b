"""Copy the records of finished runs to a folder that goes into a repository.

    python tools/publish_records.py work_dirs/camvid --out results/camvid --no-pictures

Leave the pictures out where the data set's terms do not let its images be passed on.
"""

import argparse
from pathlib import Path

import mmseg_recall  # noqa: F401  (checks the stack)
from mmseg_recall.comparison.record import read_record, write_record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', type=Path, help='folder of a comparison by tools/benchmark.py')
    parser.add_argument('--out', type=Path, required=True, help='folder of the copies')
    parser.add_argument(
        '--no-pictures', action='store_true', help='without pieces of test images and their labels'
    )
    args = parser.parse_args()
    try:
        records = {path.name: read_record(path) for path in sorted(args.runs.glob('*.json'))}
    except ValueError as error:
        parser.exit(1, f'{error}\n')
    if not records:
        parser.exit(1, f'{args.runs}: no records (*.json) here\n')
    unfinished = [name for name, record in records.items() if record['status'] != 'complete']
    if unfinished:
        parser.exit(1, f'{args.runs}: failed runs are not published: {", ".join(unfinished)}\n')
    for name, record in records.items():
        write_record(args.out / name, {**record, 'panel': []} if args.no_pictures else record)
    print(f'{args.out}: {len(records)} records')


if __name__ == '__main__':
    main()
