"""How well a batch knows the recall of its classes: the noise of RecallLoss's weights, simulated.

    python benchmarks/sdn_regimes.py

Labels are drawn epoch by epoch from class counts; classes with more than 100 images are found 70%
of the time and the others 50%, so that the true weights are 0.3 and 0.5. Prints a table.
"""

from __future__ import annotations

import numpy as np

MANY, RECALL = 100, (0.7, 0.5)
EPOCHS = 3


def power_law(images: int, num_classes: int, largest: int) -> np.ndarray:
    """Class counts that fall by a power of the rank, with this sum and largest."""
    rank = np.arange(1, num_classes + 1)
    low, high = 0.0, 5.0
    for _ in range(60):
        power = (low + high) / 2
        counts = np.maximum(np.round(largest * rank**-power), 1)
        low, high = (power, high) if counts.sum() > images else (low, power)
    return counts.astype(int)


REGIMES = {
    'solar cells': (np.array([885, 553, 367, 278, 143, 82, 21, 15]), (32, 256)),
    'solar cells, longer tail': (np.array([885, 458, 237, 122, 63, 32, 17, 8]), (32, 256)),
    'long-tailed digits': (np.array([124, 80, 51, 33, 21, 14, 9, 5, 3, 2]), (32, 342)),
    'Places-LT (its 365 classes, 62,500 images)': (power_law(62_500, 365, 4980), (128,)),
    'iNaturalist 2018 (its 8,142 classes, 437,513 images)': (
        power_law(437_513, 8142, 1000),
        (128,),
    ),
}


def simulate(counts: np.ndarray, batch: int, momentum: float) -> dict[str, float]:
    """Over the samples of the last epoch: how they fall into classes, and how wrong weights are."""
    generator = np.random.default_rng(0)
    found_at = np.where(counts > MANY, *RECALL)
    labels = np.repeat(np.arange(len(counts)), counts)
    running = np.full(len(counts), np.nan)
    alone, classes, errors = [], [], []
    for epoch in range(EPOCHS):
        generator.shuffle(labels)
        for start in range(0, len(labels), batch):
            target = labels[start : start + batch]
            n = np.bincount(target, minlength=len(counts))
            hits = generator.binomial(n, found_at)
            present = n > 0
            recall = np.divide(hits, n, out=np.full(len(n), np.nan), where=present)
            first = present & np.isnan(running)
            old = np.where(first, recall, running)
            running = np.where(present, momentum * old + (1 - momentum) * recall, running)
            if epoch == EPOCHS - 1:
                alone.append((n == 1).sum() / len(target))
                classes.append(present.sum())
                errors.append((found_at - running)[target])
    error = np.concatenate(errors)
    return dict(
        classes=float(np.mean(classes)),
        alone=100 * float(np.mean(alone)),
        noise=float(np.sqrt((error**2).mean())),
    )


def main() -> None:
    print('| data | batch | classes in it | alone in their class | noise | with `momentum=0.9` |')
    print('|:--|--:|--:|--:|--:|--:|')
    for name, (counts, batches) in REGIMES.items():
        for batch in batches:
            plain, smooth = (simulate(counts, batch, m) for m in (0.0, 0.9))
            print(
                f'| {name} | {batch} | {plain["classes"]:.1f} | {plain["alone"]:.1f}% | '
                f'{plain["noise"]:.2f} | {smooth["noise"]:.2f} |'
            )


if __name__ == '__main__':
    main()
