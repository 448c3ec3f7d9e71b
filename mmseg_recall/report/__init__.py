"""The comparison as a page: which loss wins, where, why, and at what cost."""

from .render import render_report

__all__ = ['render_report']
