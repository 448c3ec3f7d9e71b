"""What a config's data say before anything is trained: shares, faults, and what to try."""

from ..stack import check_stack

check_stack()

from .judge import Diagnosis, diagnose  # noqa: E402
from .page import as_json, as_markdown, as_tables  # noqa: E402

__all__ = ['Diagnosis', 'as_json', 'as_markdown', 'as_tables', 'diagnose']
