"""The paper's Figure 1: image, truth and each loss's prediction, side by side."""

from __future__ import annotations

import base64
import colorsys
import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ..blocks import Section, section
from ..load import Run
from ..summary import Comparison

ORDER = 90
IGNORED = (0, 0, 0)
COLUMN_WIDTH = 160
RULE = (
    'Chosen by a rule that reads the truth only: for each of the rarest classes of the test set '
    'the images with most pixels of it, and a third of the image around its largest region. The '
    'lowest seed of each loss.'
)
GAP = ((2, 2), (2, 2), (0, 0))


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    return section('Predictions around rare objects', panel_of(comparison))


@dataclass(frozen=True)
class Piece:
    """One row of the panel: heading, and pairs (caption, data URI of the picture)."""

    heading: str
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panel:
    """Name of its file, rows, and the classes in them with their colours."""

    kind: ClassVar = 'panel'
    name: str
    pieces: tuple[Piece, ...]
    legend: tuple[tuple[str, str], ...]
    rule: str = RULE

    @property
    def captions(self) -> list[str]:
        return [caption for caption, _ in self.pieces[0].pictures]

    @property
    def grid(self) -> bytes:
        """All pictures in one PNG: a row a piece, a column a caption."""
        rows = []
        for piece in self.pieces:
            data = (base64.b64decode(uri.partition(',')[2]) for _, uri in piece.pictures)
            images = [Image.open(io.BytesIO(one)).convert('RGB') for one in data]
            height = max(1, round(COLUMN_WIDTH * images[0].height / images[0].width))
            cells = [i.resize((COLUMN_WIDTH, height), Image.Resampling.NEAREST) for i in images]
            row = [np.pad(np.asarray(c), GAP, constant_values=255) for c in cells]
            rows.append(np.concatenate(row, axis=1))
        return _png(Image.fromarray(np.concatenate(rows)))


def panel_of(comparison: Comparison) -> Panel | None:
    """The pieces that the records hold, of each loss's lowest seed; None without any."""
    shown = {
        loss.label: min(runs, key=lambda run: run.seed or 0)
        for loss in comparison.losses
        if (runs := [run for run in loss.runs if run.panel])
    }
    if not shown:
        return None
    first = next(iter(shown.values()))
    palette = _palette(first.palette, len(first.classes))
    pieces: list[Piece] = []
    present: set[int] = set()
    share = comparison.share
    for piece in first.panel:
        found = [same for run in shown.values() if (same := _same_piece(run, piece))]
        is_rare = share is None or piece['class'] != first.classes[int(np.argmax(share))]
        # Records of earlier versions show others, of the most frequent class, too.
        if not is_rare or len(found) < len(shown):
            continue
        pictures = [('image', f'data:image/jpeg;base64,{piece["picture"]}')]
        truth = _labels(piece['truth'])
        present |= set(np.unique(truth))
        pictures.append(('truth', _coloured(truth, palette)))
        for label, of_loss in zip(shown, found, strict=True):
            prediction = _labels(of_loss['prediction'])
            present |= set(np.unique(prediction))
            pictures.append((label, _coloured(prediction, palette)))
        heading = f'{piece["class"]}, in {piece["image"]}'
        pieces.append(Piece(heading, tuple(pictures)))
    if not pieces:
        return None
    legend = [
        (name, '#{:02x}{:02x}{:02x}'.format(*palette[c]))
        for c, name in enumerate(first.classes)
        if c in present
    ]
    return Panel(f'panel-{comparison.number}', tuple(pieces), tuple(legend))


def _same_piece(run: Run, piece: dict[str, Any]) -> dict[str, Any] | None:
    place = ('class', 'image', 'box')
    return next((p for p in run.panel if all(p[k] == piece[k] for k in place)), None)


def _labels(text: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))))


def _coloured(labels: np.ndarray, palette: np.ndarray) -> str:
    image = Image.fromarray(labels)
    image = image.convert('P')
    image.putpalette(palette.tobytes())
    return f'data:image/png;base64,{base64.b64encode(_png(image)).decode()}'


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format='PNG', optimize=True)
    return buffer.getvalue()


def _palette(colours: tuple | None, num_classes: int) -> np.ndarray:
    """(256, 3) uint8; what is no class is black."""
    if colours is None:
        hues = [colorsys.hsv_to_rgb(c * 0.618 % 1, 0.65, 0.9) for c in range(num_classes)]
        colours = tuple(tuple(round(255 * v) for v in rgb) for rgb in hues)
    palette = np.tile(np.array(IGNORED, dtype=np.uint8), (256, 1))
    palette[: len(colours)] = colours
    return palette
