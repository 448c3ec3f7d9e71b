"""Run the comparison of losses: plan the runs, train and test each, keep a record of each."""

from .benchmark import run_all
from .plan import Plan, plan_runs

__all__ = ['Plan', 'plan_runs', 'run_all']
