"""What `make docs` adds: a page a loss, the repository's other pages, and a link check."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib
import numpy as np
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from mmseg_recall.losses import available_losses
from mmseg_recall.statistics import estimate, with_interval

matplotlib.use('Agg')
ROOT = Path(__file__).parents[1]
# Pages that lie beside docs/ and have their place in the site.
OUTSIDE = ['CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'benchmarks/README.md']
DATASETS = {
    'CamVid, 240 iterations': ['results/camvid', 'results/study/camvid'],
    'Rendered scenes, 1,000 iterations': ['results/synthia-mini', 'results/study/synthia-mini'],
    'Test drives of CamVid, 1,200 iterations of a head': ['results/study/frozen-camvid'],
    'Steel, 600 iterations of a head': ['results/study/frozen-neu_seg-600'],
    'Magnetic tiles, 1,200 iterations of a head': ['results/study/frozen-magnetic_tile'],
}
LINK = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    (losses,) = (section['Losses'] for section in config.nav if 'Losses' in section)
    pages = [f'losses/{name}.md' for name in sorted(available_losses())]
    losses.insert(1, {'A page a loss': pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    results = [p for p in (ROOT / 'results').rglob('*') if p.suffix in {'.md', '.svg', '.png'}]
    for path in [*(ROOT / name for name in OUTSIDE), *results]:
        uri = str(path.relative_to(ROOT))
        files.append(File(uri, str(ROOT), config.site_dir, config.use_directory_urls))
    for name in available_losses():
        files.append(File.generated(config, f'losses/{name}.md', content=loss_page(name)))
        if curves := weights_over_training(name):
            files.append(File.generated(config, f'losses/{name}.svg', content=curves))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that are right in the repository be right in the site."""
    if page.file.abs_src_path is None:  # made here
        return markdown
    source = Path(page.file.abs_src_path)
    if page.file.src_uri == 'losses.md':
        markdown += f'\n## A page a loss\n\n{index_of_losses()}\n'

    def in_site(match: re.Match) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ''
        if not target or urlsplit(target).scheme:
            return match[0]
        path = Path(os.path.normpath(source.parent / unquote(target)))
        path = ROOT / 'docs/index.md' if path == ROOT / 'README.md' else path
        if (path / 'README.md').is_file():
            path /= 'README.md'
        uri = path.relative_to(ROOT / 'docs' if path.is_relative_to(ROOT / 'docs') else ROOT)
        if uri.as_posix() in files.src_uris:
            relative = os.path.relpath(uri, Path(page.file.src_uri).parent)
            return f'{image}[{text}]({relative}{anchor})'
        if path.exists():  # of the repository, and no page: name it
            return f'{text} (`{path.relative_to(ROOT)}`)'
        return match[0]

    return LINK.sub(in_site, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return re.sub(r':(?:class|func|meth|data|mod):(?=<code>)', '', html)  # roles of docstrings


def loss_page(name: str) -> str:
    kind = name.removesuffix('Loss')
    parts = [f'# {name}\n\n::: {available_losses()[name].__module__}.{name}\n']
    bases = [p for p in sorted((ROOT / 'configs/_base_/losses').glob('*.py')) if uses(p, name)]
    if bases:
        parts.append('## In a config\n')
        parts.append(f'Bases with it: {", ".join(f"`{p.stem}.py`" for p in bases)}.\n')
        base = f'mmseg_recall::_base_/losses/{bases[0].name}'
        parts.append(f"```python\n_base_ = ['your_config.py', '{base}']\n```\n")
    if rows := cost_rows(name):
        parts.append('## Cost\n')
        parts.append('Forward and backward on two CPU cores, `F.cross_entropy` being 1.\n')
        parts.append('| Logits | Time | Peak memory |\n|---|---:|---:|\n' + '\n'.join(rows) + '\n')
    if tables := [t for title in DATASETS if (t := evidence(kind, title))]:
        parts.append('## What it did\n')
        parts.append('Means over seeds, per cent; intervals of 95%.\n')
        parts.extend(tables)
        parts.append('How these runs were made: [results](../results/README.md).\n')
    if weights_over_training(name):
        parts.append(f'## Its weights over training\n\n![Weight of each class]({name}.svg)\n')
        parts.append('CamVid, seed 0, logged every 10 iterations.\n')
    return '\n'.join(parts)


def uses(base: Path, name: str) -> bool:
    return f"type='{name}'" in base.read_text()


def cost_rows(name: str) -> list[str]:
    with (ROOT / 'benchmarks/results.csv').open() as file:
        return [
            f'| {row["shape"]} | {float(row["forward+backward ratio"]):.2f} '
            f'| {float(row["peak ratio"]):.2f} |'
            for row in csv.DictReader(file)
            if row['group'] == 'loss' and row['row'] == name
        ]


def records(title: str) -> dict[str, dict[int, dict]]:
    """Runs of one dataset, by the label of the loss and by seed."""
    found: dict[str, dict[int, dict]] = {}
    for folder in DATASETS[title]:
        for path in sorted((ROOT / folder).glob('*.json')):
            record = json.loads(path.read_text())
            found.setdefault(record['setup']['loss'], {})[record['seed']] = record
    return found


def evidence(kind: str, title: str) -> str:
    runs = records(title)
    labels = [label for label in sorted(runs) if label.split()[0] == kind and '+' not in label]
    if not labels:
        return ''
    lines = [f'| {title} | Seeds | Mean IoU | Mean accuracy | Overall accuracy |']
    lines.append('|---|---:|---:|---:|---:|')
    for label in ['CE', *labels]:
        of_seed = runs[label].values()
        cells = [interval([r['metrics'][m] for r in of_seed]) for m in ('mIoU', 'mAcc', 'aAcc')]
        lines.append(f'| {label} | {len(of_seed)} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def interval(values: list[float]) -> str:
    found = estimate(np.array(values))
    return with_interval(found.mean, *np.clip(found.interval(), 0, 100))


def weights_over_training(name: str) -> str:
    """An SVG of the class weights that a run logged; empty where no run has any."""
    import matplotlib.pyplot as plt

    run = records('CamVid, 240 iterations').get(name.removesuffix('Loss'), {}).get(0)
    weights = run and run['curves'] and run['curves'].get('weight')
    if not weights:
        return ''
    with plt.rc_context({'svg.hashsalt': name, 'svg.fonttype': 'none', 'font.size': 9}):
        figure, axes = plt.subplots(figsize=(8, 3.6), layout='constrained')
        for label, values, colour in zip(weights, weights.values(), run['palette'], strict=True):
            known = [math.nan if value is None else value for value in values]
            colour = [channel / 255 for channel in colour]
            axes.plot(run['curves']['iterations'], known, label=label, color=colour)
        axes.set(xlabel='iteration', ylabel='weight of the class')
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
        text = io.StringIO()
        figure.savefig(text, format='svg', metadata={'Date': None})
        plt.close(figure)
    return text.getvalue()


def index_of_losses() -> str:
    rows = ['| Loss | What it is |', '|---|---|']
    for name, kind in sorted(available_losses().items()):
        rows.append(f'| [{name}](losses/{name}.md) | {(kind.__doc__ or "").splitlines()[0]} |')
    return '\n'.join(rows)


class Links(HTMLParser):
    """The links of a page and the places that one can link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.places |= {value for name in ('id', 'name') if (value := given.get(name))}
        self.links += [value for name in ('href', 'src') if (value := given.get(name))]


def on_post_build(config: MkDocsConfig) -> None:
    """Follow each link within the site to its file and its heading."""
    site = Path(config.site_dir)
    pages = {path: Links(path) for path in site.rglob('*.html') if path.name != '404.html'}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            target = Path(os.path.normpath(target))
            target = target / 'index.html' if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (
                anchor and target in pages and anchor not in pages[target].places
            ):
                broken.append(f'{path.relative_to(site)}: {link}')
    if broken:
        raise PluginError('these links lead nowhere:\n  ' + '\n  '.join(broken))
