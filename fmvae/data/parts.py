"""Images of one's own, chosen into the three splits of ``ImageData``."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmvae.data.split import a_tenth, choose

Part = tuple[np.ndarray, np.ndarray | None]


def three_parts(
    given: Part,
    test: Part | None,
    *,
    val_size: int | None,
    num_train: int | None,
    num_test: int | None,
    **choice: Any,
) -> dict[str, Part]:
    """Return images and labels of each split, by its name.

    Args:
        given: images (N, C, H, W) and labels (N,), or None for images without labels.
        test: the same for testing; None if test images are to be held out of ``given``.
        val_size: None is a tenth of the images that are not for testing.
        num_train, num_test, choice: as for ``choose``.
    """
    images, labels = given
    if val_size is None:
        rest = len(images) - (0 if test else num_test or a_tenth(len(images)))
        val_size = a_tenth(min(rest, num_train or rest))
    plain = np.zeros(len(images), np.int64) if labels is None else labels
    theirs = None if test is None else np.zeros(len(test[0]), np.int64) if test[1] is None else test[1]
    chosen = choose(plain, theirs, val_size=val_size, num_train=num_train, num_test=num_test, **choice)

    def part(of: Part, index: np.ndarray) -> Part:
        return of[0][index], None if of[1] is None else of[1][index]

    return {
        "train": part(given, chosen.train.numpy()),
        "val": part(given, chosen.val.numpy()),
        "test": part(test or given, chosen.test.numpy()),
    }
