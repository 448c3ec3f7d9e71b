"""How many random cases the property-based tests try.

By default a few hundred a loss, the same in every run. ``--hypothesis-profile=thorough`` tries
10,000 a loss that nobody has seen before; with ``--hypothesis-seed=0`` they can be had again.
"""

from hypothesis import HealthCheck, settings

# Machines are shared: how long a case takes says nothing about the code.
PATIENT = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile('fast', max_examples=200, derandomize=True, **PATIENT)
settings.register_profile('thorough', max_examples=10_000, **PATIENT)
settings.load_profile('fast')
