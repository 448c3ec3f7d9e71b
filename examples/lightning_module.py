"""RecallLoss in Lightning: the module holds the loss, its training step returns it.

Needs: pip install lightning
Run:   python examples/lightning_module.py
"""

import lightning
import torch
from shapes import CLASSES, batch, print_recall
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmseg_recall import RecallLoss


class Segmenter(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.criterion = RecallLoss()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, len(CLASSES), 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, target = batch
        return self.criterion(self(images), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main() -> None:
    torch.manual_seed(0)
    model = Segmenter()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    batches = [batch(step) for step in range(30)]
    trainer.fit(model, DataLoader(batches, batch_size=None))
    images, target = batch(1000)
    with torch.no_grad():
        print_recall(model(images), target, model.training_step((images, target), 0))


if __name__ == '__main__':
    main()
