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
benchmark camvid-schedule $camvid '0 1 2' 'ce recommended'
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

# Heads on frozen features. NAME CONFIG SEEDS LOSSES ITERATIONS [OPTION ...]
frozen() {
    $python tools/class_statistics.py "results/study/configs/$2.py"
    $python tools/benchmark.py "results/study/configs/$2.py" --seeds $3 --losses $4 --frozen 2 \
        --out "work_dirs/study/frozen-$1" "${@:6}" \
        --cfg-options train_cfg.max_iters="$5" param_scheduler.0.end="$5" $options
}
weights='ce recall inverse_frequency_sqrt inverse_frequency_sqrt_to_ce'
sums='inverse_frequency_sqrt_lovasz recommended'
options=
frozen neu_seg neu_seg '0 1 2 3 4 5 6 7' "$weights $sums" 150 --tune 3e-3 1e-2 3e-2 1e-1 --budget 600
frozen camvid camvid '0 1 2 3 4 5 6 7' "$weights $sums" 1200 --tune 1e-2 3e-2 1e-1 --budget 1800
options='optim_wrapper.optimizer.lr=0.03'
frozen neu_seg-600 neu_seg '0 1 2 3 4 5 6 7' "$weights $sums" 600
frozen neu_seg-2400 neu_seg '0 1 2' "$weights $sums" 2400
for n in 1200 4800; do frozen neu_seg-$n neu_seg '0 1' ce $n; done
frozen camvid-300 camvid '0 1 2 3 4 5 6 7' "$weights $sums" 300
frozen magnetic_tile magnetic_tile '0 1 2 3 4 5 6 7' "$weights $sums" 1200

# Do they order the losses as trainings of the whole model do? On the same validation images.
options="optim_wrapper.optimizer.lr=0.03 test_dataloader.dataset.data_prefix.img_path=images/val
    test_dataloader.dataset.data_prefix.seg_map_path=annotations/val"
frozen camvid-val camvid 0 "ce recall inverse_frequency_sqrt inverse_frequency
    inverse_frequency_sqrt_lovasz class_balanced focal ohem soft_iou lovasz inverse_frequency_e75 recall_lovasz recall_prior seesaw
    tversky balanced_softmax $candidates/logit_adjusted_t50.py" 240

for runs in work_dirs/study/*; do
    case $runs in *-trials | */features) continue ;; esac
    $python tools/publish_records.py "$runs" --out "results/study/$(basename "$runs")" --no-pictures
done
