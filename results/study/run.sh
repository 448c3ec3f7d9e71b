#!/usr/bin/env bash
# Trains and tests the study's models and copies their records here: hours on two cores. After `make
# results`, which prepares the data and trains the losses that are not trained again. Killed, it goes on
# where it was.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv-torchvision/bin/python
camvid=results/deeplabv3plus_lite0_camvid.py
holdout=results/deeplabv3plus_lite0_camvid_holdout.py
candidates=results/study/losses
finalists='inverse_frequency_sqrt inverse_frequency_e75 inverse_frequency_sqrt_lovasz recall_lovasz'

# NAME CONFIG SEEDS LOSSES [OPTION=VALUE ...]
benchmark() {
    $python tools/benchmark.py "$2" --seeds $3 --losses $4 --jobs 2 --out "work_dirs/study/$1" \
        ${5:+--cfg-options "${@:5}"}
}

# Chosen on the last quarter of each sequence of CamVid's training images.
$python tools/class_statistics.py $holdout
benchmark holdout $holdout 0 "ce recall inverse_frequency lovasz $finalists recall_prior seesaw tversky
    balanced_softmax $(ls $candidates/*.py)"

# Reported on its validation images.
benchmark camvid $camvid '0 1 2 3 4' "ce $finalists"
benchmark camvid $camvid '3 4' 'recall inverse_frequency lovasz'
benchmark camvid $camvid '0 1' "recall_prior seesaw tversky balanced_softmax
    $candidates/logit_adjusted_t50.py $candidates/recall_weights.py"
longer() {
    benchmark "camvid-$1" $camvid "$2" "$3" train_cfg.max_iters="$1" param_scheduler.0.end="$1"
}
lengths='ce recall inverse_frequency inverse_frequency_sqrt inverse_frequency_sqrt_lovasz recall_lovasz'
longer 480 '0 1' "$lengths"
longer 960 '0 1' "$lengths"

# The second data set, without choosing again.
benchmark synthia-mini configs/ce/deeplabv3_r18_synthia-mini.py '0 1 2' "ce $finalists"

# Heads on frozen features of steel defects, each loss with its own learning rate.
$python tools/class_statistics.py results/study/configs/neu_seg.py
$python tools/benchmark.py results/study/configs/neu_seg.py --seeds 0 1 2 3 4 5 6 7 --frozen 2 \
    --losses ce recall inverse_frequency_sqrt inverse_frequency_sqrt_to_ce \
    --tune 3e-3 1e-2 3e-2 1e-1 --budget 600 --out work_dirs/study/frozen-neu_seg

for runs in work_dirs/study/*; do
    case $runs in *-trials | */features) continue ;; esac
    $python tools/publish_records.py "$runs" --out "results/study/$(basename "$runs")" --no-pictures
done
