"""Train a segmentor: the stock script of the installed mmseg with mmseg_recall imported, every flag its own."""

import mmseg_recall  # noqa: F401  (registers the losses, datasets, hooks and the runner)
from mmseg_recall.stack import run_stock_script

if __name__ == "__main__":
    run_stock_script("train.py")
