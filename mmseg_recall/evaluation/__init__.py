"""Evaluation metrics, registered in mmseg's METRICS."""

from ..stack import check_stack

check_stack()

from .areas import Areas  # noqa: E402
from .per_class_iou_metric import PerClassIoUMetric, load_areas, save_areas  # noqa: E402

__all__ = ['Areas', 'PerClassIoUMetric', 'load_areas', 'save_areas']
