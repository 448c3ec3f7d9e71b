"""Train a classifier with the stock script of the installed mmpretrain, plugin imported first."""

import mmseg_recall.classification  # noqa: F401  (registers losses, heads, hooks and data sets)
from mmseg_recall.stack import run_stock_script

if __name__ == '__main__':
    run_stock_script('train.py', package='mmpretrain')
