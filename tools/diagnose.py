"""Say, before any training, what is wrong with a config's data, how rare its classes are for the
batches that it draws, and which loss to try."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction
from rich.console import Console

import mmseg_recall  # noqa: F401  (registers the datasets)
from mmseg_recall.diagnosis import as_json, as_markdown, as_tables, diagnose
from mmseg_recall.files import write_atomically


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--checkpoint', help='a trained model, to score with adjusted logits')
    parser.add_argument(
        '--groups',
        help='which test images are not independent: a regular expression whose first group in '
        "a file's stem names its scene, or a JSON file of scenes by stem; with --checkpoint",
    )
    parser.add_argument('--markdown', type=Path, help='file to write the page to')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides of the config, as key=value'
    )
    args = parser.parse_args()
    for path in (args.markdown, args.json):
        if path and path.is_dir():
            parser.error(f'{path} is a folder: name a file in it')
    if args.groups and not args.checkpoint:
        parser.error('--groups says which images a trained model is judged on: pass --checkpoint')
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options or {})
        diagnosis = diagnose(config, args.checkpoint, args.groups)
    except (OSError, ValueError, SyntaxError) as error:
        parser.exit(1, f'{error}\n')
    for shown in as_tables(diagnosis):
        Console().print(shown)
    for path, text in ((args.markdown, as_markdown(diagnosis)), (args.json, as_json(diagnosis))):
        if path:
            write_atomically(path, text.encode())
            print(path)


if __name__ == '__main__':
    main()
