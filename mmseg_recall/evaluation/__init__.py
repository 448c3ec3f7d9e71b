"""Evaluation metrics, registered in mmseg's METRICS."""

from .areas import Areas
from .per_class_iou_metric import PerClassIoUMetric, load_areas, save_areas

__all__ = ['Areas', 'PerClassIoUMetric', 'load_areas', 'save_areas']
