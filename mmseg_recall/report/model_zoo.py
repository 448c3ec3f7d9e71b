"""The results in the form of mmseg's model zoo: ``metafile.yml`` and ``model-index.yml``."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from .summary import Comparison, Loss

COLLECTION = {
    'Name': 'RecallLoss',
    'Metadata': {'Training Data': []},
    'Paper': {
        'Title': 'Striking the Right Balance: Recall Loss for Semantic Segmentation',
        'URL': 'https://arxiv.org/abs/2106.14917',
    },
    'README': 'configs/recall/README.md',
    'Frameworks': ['PyTorch'],
}


def metafile(comparisons: list[Comparison]) -> str:
    """``metafile.yml``: a model for each comparison and loss, metrics mean over its seeds."""
    data = sorted({comparison.setup['dataset'] for comparison in comparisons})
    collection = {**COLLECTION, 'Metadata': {'Training Data': data}}
    models = [_model(c, loss) for c in comparisons for loss in c.losses]
    content = {'Collections': [collection], 'Models': models}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def model_index() -> str:
    """``model-index.yml``, which names the metafile."""
    return yaml.safe_dump({'Import': ['metafile.yml']})


def _model(comparison: Comparison, loss: Loss) -> dict[str, Any]:
    run, setup = loss.runs[0], comparison.setup
    metrics = {name: loss.metric(name).mean for name in ('mIoU', 'mAcc', 'aAcc')}
    metadata = {
        'Training Data': setup['dataset'],
        'Batch Size': setup['batch_size'],
        'Architecture': setup['model'].split(),
        'Schedule': setup['schedule'],
        'Loss': loss.label,
        'Seeds': [r.seed for r in loss.runs],
    }
    if not math.isnan(loss.memory):
        metadata['Memory (GB)'] = round(loss.memory / 1024, 2)
    return {
        'Name': re.sub(r'_seed\d+$', '', run.name),
        'In Collection': COLLECTION['Name'],
        'Results': {
            'Task': 'Semantic Segmentation',
            'Dataset': setup['dataset'],
            'Metrics': {k: round(v, 2) for k, v in metrics.items() if not math.isnan(v)},
        },
        'Config': run.config_file,
        'Metadata': metadata,
        'Framework': 'PyTorch',
    }
