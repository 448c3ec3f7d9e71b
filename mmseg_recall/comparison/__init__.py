"""Run the comparison of losses: plan the runs, train and test each, keep a record of each."""

from ..stack import check_stack

check_stack()

from .benchmark import run_all  # noqa: E402
from .frozen import run_frozen  # noqa: E402
from .plan import Plan, plan_runs  # noqa: E402
from .tuning import tune  # noqa: E402

__all__ = ['Plan', 'plan_runs', 'run_all', 'run_frozen', 'tune']
