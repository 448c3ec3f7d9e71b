"""Write the weights of a trained SDNHead model as those of the same model with a LinearClsHead."""

import argparse
from pathlib import Path

import torch

from mmseg_recall.classification.sdn_head import drop_feature_head


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help='of the training, such as epoch_90.pth')
    parser.add_argument('--out', type=Path, required=True, help='the file to write')
    args = parser.parse_args()
    try:
        checkpoint = torch.load(args.checkpoint, map_location='cpu', weights_only=True)
        exported = dict(
            state_dict=drop_feature_head(checkpoint['state_dict']), meta=checkpoint['meta']
        )
    except (OSError, ValueError) as error:
        parser.exit(1, f'{args.checkpoint}: {error}\n')
    torch.save(exported, args.out)


if __name__ == '__main__':
    main()
