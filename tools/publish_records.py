"""Copy the records of finished runs to a folder that goes into a repository.

    python tools/publish_records.py work_dirs/camvid --out results/camvid --no-pictures

Leave the pictures out where the data set's terms do not let its images be passed on.
"""

import argparse
from pathlib import Path
from typing import Any

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
    parser.add_argument(
        '--force', action='store_true', help='replace records of the same name that differ'
    )
    args = parser.parse_args()
    try:
        records = {path.name: read_record(path) for path in sorted(args.runs.glob('*.json'))}
        published = published_records(args.out)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    if not records:
        parser.exit(1, f'{args.runs}: no records (*.json) here\n')
    unfinished = [name for name, record in records.items() if record['status'] != 'complete']
    if unfinished:
        parser.exit(1, f'{args.runs}: failed runs are not published: {", ".join(unfinished)}\n')
    if args.no_pictures:
        records = {name: {**record, 'panel': []} for name, record in records.items()}
    others = [name for name in records if published.get(name, records[name]) != records[name]]
    if others and not args.force:
        parser.exit(
            1,
            f'{args.out} has other records of these names: {", ".join(others)}. Name another '
            'folder, or replace them with --force\n',
        )
    for name, record in records.items():
        write_record(args.out / name, record)
    print(f'{args.out}: {len(records)} records')


def published_records(out: Path) -> dict[str, dict[str, Any]]:
    """The records in a folder; anything else in it is an error."""
    if not out.exists():
        return {}
    if not out.is_dir():
        raise FileExistsError(f'{out} is a file. Name a folder')
    try:
        return {path.name: read_record(path) for path in sorted(out.glob('[!.]*'))}
    except ValueError as error:
        raise FileExistsError(
            f'{out} is for records alone, and has something else in it: {error}'
        ) from error


if __name__ == '__main__':
    main()
