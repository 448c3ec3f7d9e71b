"""Settings that have to be made before anything is imported.

Without a GPU Triton interprets its kernels. What `make test-classification` runs is left out where
mmpretrain is not installed, and the kernels are not read where Triton is not.
"""

import os
from importlib.util import find_spec

import torch

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'

collect_ignore_glob = (
    [] if find_spec('mmpretrain') else ['mmseg_recall/classification/*', 'tests/classification/*']
)
collect_ignore = (
    []
    if find_spec('triton')
    else ['mmseg_recall/functional/engines/cuda_kernels.py', 'tests/functional/compile_kernels.py']
)
