"""Write the report: one HTML page, Markdown with its figures, CSV, and mmseg's model-zoo files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..out_folder import claim, write_files
from .both_axes import BothAxes, both_axes
from .claims import Claim, test_claims
from .curves import weight_share_table
from .diagnosis import Diagnosis, diagnose
from .figures import Plot, all_plots, metrics_against_length
from .images import Panel, panel_of
from .load import load_runs
from .model_zoo import metafile, model_index
from .paper import paper_table
from .post_hoc import post_hoc_table
from .shots import paper_shot_tables, shot_class_table, shot_table, shot_verdict
from .summary import Comparison, compare
from .tables import (
    Cell,
    Table,
    class_rows,
    class_table,
    cost_table,
    overall_table,
    paper_comparison,
    run_rows,
    runs_table,
    zoo_table,
)
from .training_length import TrainingLength, training_length

TOOL = 'report'


@dataclass(frozen=True)
class Section:
    """What the page says of one comparison."""

    title: str
    anchor: str
    question: str
    diagnosis: Diagnosis
    claims: list[Claim]
    overall: Table
    post_hoc: Table | None
    both_axes: BothAxes | None
    lengths: TrainingLength | None
    classes: list[Table]
    paper: list[Table]
    weight_shares: Table | None
    plots: dict[str, Plot]
    panel: Panel | None
    cost: Table
    zoo: Table | None
    runs: Table
    software: list[str]


def render_report(
    paths: Sequence[Path], out: Path, date: str, trust_configs: bool = False
) -> list[str]:
    """Render everything that can be rendered of the runs below ``paths``.

    Args:
        paths: Records, work directories of mmseg, or folders of them.
        out: Folder; gets report.html, README.md, figures/, runs.csv, classes.csv, metafile.yml
            and model-index.yml (these two of segmentation only).
        date: Printed in the heads of the page and of README.md, and nowhere else: the rest
            depends on the runs alone.
        trust_configs: Run a work directory's config where it is more than values.

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
    comparisons = compare(runs)
    sections = [
        _section(comparison, comparisons, i) for i, comparison in enumerate(comparisons, start=1)
    ]
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=lambda name: name is not None and '.html' in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {'markdown_cell': _markdown_cell, 'heading': _heading}
    known = dict(
        heading=_title(comparisons),
        sections=sections,
        problems=problems,
        date=date,
        number=len(runs),
        segments=any(not comparison.classifies for comparison in comparisons),
    )
    files = {
        'report.html': environment.get_template('report.html.j2').render(known),
        'README.md': environment.get_template('report.md.j2').render(known),
        'runs.csv': _csv(run_rows(comparisons)),
        'classes.csv': _csv(class_rows(comparisons)),
    }
    segmentation = [comparison for comparison in comparisons if not comparison.classifies]
    if segmentation:
        files |= {'metafile.yml': metafile(segmentation), 'model-index.yml': model_index()}
    files |= {f'figures/{p.name}.svg': p.file for s in sections for p in s.plots.values()}
    pictures = {f'figures/{s.panel.name}.png': s.panel.grid for s in sections if s.panel}
    contents = {name: text.encode() for name, text in files.items()} | pictures
    write_files(out, TOOL, contents)
    return problems


def _title(comparisons: list[Comparison]) -> str:
    kinds = {comparison.classifies for comparison in comparisons}
    return {
        (False,): 'Comparison of segmentation losses',
        (True,): 'Comparison of classifiers for long-tailed data',
    }.get(tuple(kinds), 'Comparison of losses')


def _section(comparison: Comparison, comparisons: list[Comparison], number: int) -> Section:
    if comparison.classifies:
        return _shot_section(comparison, number)
    plots = all_plots(comparison, number)
    lengths = training_length(comparison, comparisons)
    if lengths is not None:
        plots['lengths'] = metrics_against_length(lengths, comparison, f'lengths-{number}')
    classes = [
        class_table(comparison, metric, title)
        for metric, title in (('Acc', 'Accuracy by class'), ('IoU', 'IoU by class'))
    ]
    printed = paper_table(comparison)
    paper = [
        paper_comparison(comparison, printed, metric, title)
        for metric, title in (('Acc', 'Accuracy'), ('IoU', 'IoU'))
        if printed is not None and comparison.classes
    ]
    return Section(
        title=comparison.title,
        anchor=f'comparison-{number}',
        question='Does imbalance limit you?',
        diagnosis=diagnose(comparison),
        claims=test_claims(comparison),
        overall=overall_table(comparison),
        post_hoc=post_hoc_table(comparison),
        both_axes=both_axes(comparison),
        lengths=lengths,
        classes=[table for table in classes if table is not None],
        paper=paper,
        weight_shares=weight_share_table(comparison),
        plots=plots,
        panel=panel_of(comparison, f'panel-{number}'),
        cost=cost_table(comparison),
        zoo=zoo_table(comparison),
        runs=runs_table(comparison),
        software=_software(comparison),
    )


def _shot_section(comparison: Comparison, number: int) -> Section:
    return Section(
        title=comparison.title,
        anchor=f'comparison-{number}',
        question='Does SDN (Recall) win?',
        diagnosis=shot_verdict(comparison),
        claims=test_claims(comparison),
        overall=shot_table(comparison),
        post_hoc=None,
        both_axes=None,
        lengths=None,
        classes=[shot_class_table(comparison)],
        paper=paper_shot_tables(comparison),
        weight_shares=None,
        plots={},
        panel=None,
        cost=cost_table(comparison),
        zoo=None,
        runs=runs_table(comparison),
        software=_software(comparison),
    )


def _software(comparison: Comparison) -> list[str]:
    return sorted({run.software for run in comparison.runs if run.software})


def _heading(text: str) -> Markup:
    """A column's name in HTML: may break between its words, and has its superscripts."""
    text = re.sub(r'([a-z]{3})([A-Z][a-z])', r'\1<wbr>\2', str(escape(text)))
    return Markup(re.sub(r'\^(\w)', r'<sup>\1</sup>', text))


def _csv(rows: list[list[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerows(rows)
    return buffer.getvalue()


def _markdown_cell(cell: Cell) -> str:
    text = cell.text.replace('|', '\\|').replace('_', '\\_')
    wrap = {'best': '**', 'second': '_', 'paper': ''}.get(cell.mark, '')
    return f'{wrap}{text}{wrap}'
