"""Train a segmentor with the stock script of the installed mmseg, the plugin imported first."""

import mmseg_recall  # noqa: F401  (registers the losses, datasets, hooks and the runner)
from mmseg_recall.stack import run_stock_script

if __name__ == '__main__':
    run_stock_script('train.py')
