"""How often a classifier recognises the requested class in generated images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return counts (C, C): rows are the labels (N,), columns the predicted classes, from the logits (N, C)."""
    num_classes = logits.shape[1]
    if not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(f"labels in [{labels.min()}, {labels.max()}] for {num_classes} classes")
    cells = labels.astype(np.int64) * num_classes + logits.argmax(1)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracies(counts: NDArray[np.integer], class_names: Sequence[str]) -> dict[str, Any]:
    """Compute ``overall`` and ``per_class`` accuracy in [0, 1] from a ``confusion`` matrix, as JSON values.

    The accuracy of a class without images is None.
    """
    totals = counts.sum(1)
    per_class = {
        name: float(right / total) if total else None
        for name, right, total in zip(class_names, counts.diagonal(), totals, strict=True)
    }
    return {
        "overall": float(counts.diagonal().sum() / totals.sum()),
        "per_class": per_class,
        "confusion": counts.tolist(),
        "num_images": int(totals.sum()),
    }


def accuracy_block(
    asked: NDArray[np.integer],
    generated_logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    real_logits: NDArray[np.floating],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return accuracies on generated images, given the requested classes ``asked`` (N,), and on real images."""
    return {
        "generated": accuracies(confusion(asked, generated_logits), class_names),
        "real": accuracies(confusion(labels, real_logits), class_names),
    }
