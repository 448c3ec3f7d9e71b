"""Leave out, where mmpretrain is not installed, what `make test-classification` runs."""

from importlib.util import find_spec

collect_ignore_glob = (
    [] if find_spec('mmpretrain') else ['mmseg_recall/classification/*', 'tests/classification/*']
)
