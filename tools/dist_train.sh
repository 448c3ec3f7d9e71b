#!/usr/bin/env bash
# Usage: dist_train.sh CONFIG PROCESSES [arguments of train.py]
# On GPUs one process each; without a GPU the processes share the CPU (gloo).
# NNODES, NODE_RANK, MASTER_ADDR and PORT are for several machines.
set -euo pipefail

usage='Usage: dist_train.sh CONFIG PROCESSES [arguments of train.py]'
config=${1:?$usage}
processes=${2:?$usage}

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "${@:3}"
