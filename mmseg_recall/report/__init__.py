"""The comparison as a page: which loss wins, where, why, and at what cost."""

from ..stack import check_stack

check_stack()

from .render import render_report  # noqa: E402

__all__ = ['render_report']
