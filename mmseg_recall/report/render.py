"""Write the report: one HTML page, Markdown with its figures, CSV, and mmseg's model-zoo files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ..evaluation.groups import group_images
from ..out_folder import claim, write_files
from .csv_files import class_rows, run_rows
from .load import load_runs
from .model_zoo import metafile, model_index
from .questions import answers
from .summary import Comparison, compare

TOOL = 'report'
FORMULA = ('=', '+', '-', '@', '\t', '\r')


def render_report(
    paths: Sequence[Path],
    out: Path,
    date: str,
    trust_configs: bool = False,
    groups: str | None = None,
) -> list[str]:
    """Render everything that can be rendered of the runs below ``paths``.

    Args:
        paths: Records, work directories of mmseg, or folders of them.
        out: Folder; gets report.html, README.md, figures/, runs.csv, classes.csv, metafile.yml
            and model-index.yml (these two of segmentation only).
        date: Printed in the heads of the page and of README.md, and nowhere else: the rest
            depends on the runs alone.
        trust_configs: Run a work directory's config where it is more than values.
        groups: Which test images belong together, see
            :func:`mmseg_recall.evaluation.groups.group_images`; None if none do.

    Returns:
        What is wrong with runs that could not be used; it is in the report as well.

    Raises:
        FileExistsError: ``out`` has something in it that no report has made.
        ValueError: No run at all could be used; says why for each.
    """
    claim(out, TOOL)
    runs, problems = load_runs(paths, trust_configs)
    if not runs:
        raise ValueError('No run to report on.\n' + '\n'.join(problems))
    group_of: dict[str, str] = {}
    if groups is not None:
        names = (name for run in runs for name in run.image_names)
        group_of, without = group_images(groups, names)
        problems += without
    comparisons = compare(runs, group_of)
    page = [(comparison, answers(comparison, comparisons)) for comparison in comparisons]
    known = dict(
        heading=_title(comparisons),
        page=page,
        problems=problems,
        date=date,
        number=len(runs),
        segments=any(not comparison.classifies for comparison in comparisons),
    )
    files = {
        'report.html': _template('report.html.j2', autoescape=True).render(known),
        'README.md': _template('report.md.j2', finalize=_markdown).render(known),
        'runs.csv': _csv(run_rows(comparisons)),
        'classes.csv': _csv(class_rows(comparisons)),
    }
    segmentation = [comparison for comparison in comparisons if not comparison.classifies]
    if segmentation:
        files |= {'metafile.yml': metafile(segmentation), 'model-index.yml': model_index()}
    contents = {name: text.encode() for name, text in files.items()}
    blocks = (block for _, sections in page for section in sections for block in section.blocks)
    for block in blocks:
        if block.kind == 'plots':
            contents |= {f'figures/{plot.name}.svg': plot.file.encode() for plot in block.plots}
        elif block.kind == 'panel':
            contents[f'figures/{block.name}.png'] = block.grid
    write_files(out, TOOL, contents)
    return problems


def _template(name: str, **options: Any) -> Template:
    environment = Environment(
        loader=PackageLoader(__package__),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters['heading'] = _heading
    return environment.get_template(name)


def _title(comparisons: list[Comparison]) -> str:
    kinds = {comparison.classifies for comparison in comparisons}
    if len(kinds) > 1:
        return 'Comparison of losses'
    what = 'classifiers for long-tailed data' if True in kinds else 'segmentation losses'
    return f'Comparison of {what}'


def _heading(text: str) -> Markup:
    """A column's name in HTML: may break between its words, and has its superscripts."""
    text = re.sub(r'([a-z]{3})([A-Z][a-z])', r'\1<wbr>\2', str(escape(text)))
    return Markup(re.sub(r'\^(\w)', r'<sup>\1</sup>', text))


def _markdown(value: object) -> str:
    """What the Markdown page prints, one line in which nothing has a meaning of its own."""
    text = str(value).replace('&', '&amp;').replace('<', '&lt;')
    return re.sub(r'([\\`*_|~$\[\]])', r'\\\1', ' '.join(text.splitlines()))


def _csv(rows: list[list[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerows([_csv_cell(v) for v in row] for row in rows)
    return buffer.getvalue()


def _csv_cell(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
