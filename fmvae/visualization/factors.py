"""Matrices of latents and known factors: mutual information, and DCI's importances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fmvae.visualization.tiles import new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.05  # nats: independent columns have (bins - 1)(values - 1) / 2N, 0.02 for 20 values and 10,000 points
# by the name of the figure: the matrix in the block ``disentanglement``, and its title
MATRICES = {
    "factor_information": ("mutual_information", "Mutual information of latents and factors, nats"),
    "factor_importance": ("importance", "Importance of latents for factors (DCI)"),
}


def factor_matrix(matrix: Sequence[Sequence[float]], factors: Sequence[str], title: str) -> Figure:
    """Draw a matrix (D, K) >= 0, a row per latent dimension; the largest entry of each factor is framed.

    Raises:
        ValueError: the matrix has another shape, or a negative entry.
    """
    from matplotlib.patches import Rectangle

    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2 or values.shape[1] != len(factors) or values.min() < 0:
        raise ValueError(f"matrix {values.shape} for {len(factors)} factors: give (D, K) numbers >= 0")
    figure = new_figure(0.95 * len(factors) + 2.6, 0.34 * len(values) + 1.9)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(len(factors)), factors, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(values)), [f"z{row}" for row in range(len(values))])
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > values.max() / 2 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    for column, row in enumerate(values.argmax(0)):
        if values[row, column] > 0:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="#ee7733", linewidth=1.5))
    figure.colorbar(image, ax=axes, fraction=0.05)
    set_title(figure, title)
    return figure


def followed(block: Mapping[str, Any] | None) -> list[str] | None:
    """Return for each dimension the factor that it follows most, as ``x: 1.42 nats``; None without a block.

    The number is their mutual information, of the block ``disentanglement``. Below ``LEAST`` no factor is named.
    """
    if not block:
        return None
    values, names = np.asarray(block["mutual_information"], dtype=float), block["factors"]
    return [
        f"{names[row.argmax()]}: {row.max():.2f} nats" if row.max() >= LEAST else "no factor" for row in values
    ]


def wanted_factor_figures(
    block: Mapping[str, Any], name: str, only: Sequence[str] | None
) -> Iterator[tuple[str, Figure]]:
    """Yield names and figures of a block ``disentanglement``, those in ``only`` or, if it is None, all.

    Args:
        name: of the model, for titles.
    """
    for figure, (key, title) in MATRICES.items():
        if only is None or figure in only:
            yield figure, factor_matrix(block[key], block["factors"], f"{title}\n{name}")
