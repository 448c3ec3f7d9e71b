"""Report on runs: of tools/benchmark.py, or any work directories of mmseg.

    python tools/report.py work_dirs/camvid --out report/

Open report/report.html; README.md, CSV files and mmseg's metafile.yml lie beside it.
"""

import argparse
import datetime
from pathlib import Path

import mmseg_recall  # noqa: F401  (registers the data sets)
from mmseg_recall.report import render_report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'runs', nargs='+', type=Path, help='records, work directories, or folders of them'
    )
    parser.add_argument('--out', type=Path, default=Path('report'), help='default: report/')
    parser.add_argument(
        '--date', default=datetime.date.today().isoformat(), help='date to print; default: today'
    )
    parser.add_argument(
        '--trust-configs',
        action='store_true',
        help='run the configs of work directories that are more than dumped values',
    )
    parser.add_argument(
        '--groups',
        help='which test images are not independent: a regular expression whose first group in '
        "a file's stem names its scene, or a JSON file of scenes by stem",
    )
    args = parser.parse_args()
    try:
        problems = render_report(args.runs, args.out, args.date, args.trust_configs, args.groups)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    for problem in problems:
        print(f'left out: {problem}')
    print(f'{args.out / "report.html"}')


if __name__ == '__main__':
    main()
