#!/usr/bin/env bash
# Usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of test.py]
# On GPUs one process each; without a GPU the processes share the CPU (gloo).
# NNODES, NODE_RANK, MASTER_ADDR and PORT are for several machines.
set -euo pipefail

usage='Usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of test.py]'
config=${1:?$usage}
checkpoint=${2:?$usage}
processes=${3:?$usage}

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
