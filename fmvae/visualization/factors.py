"""Matrices of latents and known factors: mutual information, and DCI's importances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fmvae.visualization.tiles import new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.05  # nats: independent columns have (bins - 1)(values - 1) / 2N, 0.02 for 20 values and 10,000 points
FRAMED = "the latent that follows a factor most is framed"  # without a colon, at which titles are broken
# by the name of the figure: the matrix in the block ``disentanglement``, its title, and what its numbers are
MATRICES = {
    "factor_information": ("mutual_information", "Mutual information of latents and factors", "nats"),
    "factor_importance": (
        "importance",
        "Importance of latents for factors (DCI)",
        "share of the factor's importances",
    ),
}
OF_ENTROPY = "share of the factor's entropy"


def factor_matrix(
    matrix: Sequence[Sequence[float]],
    factors: Sequence[str],
    title: str,
    unit: str = "",
    entropies: Sequence[float] | None = None,
) -> Figure:
    """Draw a matrix (D, K) >= 0, a row per latent dimension; the largest entry of each factor is framed.

    Args:
        unit: of the entries, as text.
        entropies: of the factors, (K,), in the entries' unit. With them, the colour is an entry's share of its
            factor's entropy, so that factors of many values and of few compare. Entries are written as given.

    Raises:
        ValueError: the matrix or the entropies have another shape, or the matrix a negative entry.
    """
    from matplotlib.patches import Rectangle

    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2 or values.shape[1] != len(factors) or values.min() < 0:
        raise ValueError(f"matrix {values.shape} for {len(factors)} factors: give (D, K) numbers >= 0")
    shades, label, told = values, unit, ""
    if entropies is not None:
        whole = np.asarray(entropies, dtype=float)
        if whole.shape != (len(factors),):
            raise ValueError(f"entropies {whole.shape} for {len(factors)} factors: give one for each")
        shades = np.divide(values, whole, out=np.zeros_like(values), where=whole > 0)
        label, told = OF_ENTROPY, f"numbers in {unit}, coloured by their {OF_ENTROPY}\n"
    figure = new_figure(0.95 * len(factors) + 2.9, 0.34 * len(values) + 2.4)
    axes = figure.subplots()
    image = axes.imshow(shades, cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(len(factors)), factors, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(values)), [f"z{row}" for row in range(len(values))])
    axes.set(xlabel="factor", ylabel="latent")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if shades[row, column] > shades.max() / 2 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    for column, row in enumerate(values.argmax(0)):
        if values[row, column] > 0:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="#ee7733", linewidth=1.5))
    figure.colorbar(image, ax=axes, fraction=0.05, label=label)
    set_title(figure, f"{title}\n{told}{FRAMED}")
    return figure


def entropies_of(factors: np.ndarray) -> list[float]:
    """Return the entropy of each column of whole numbers >= 0 (N, K), in nats; 0 for a constant one."""
    shares = (np.bincount(column) / len(column) for column in factors.T)
    return [float(-(share[share > 0] * np.log(share[share > 0])).sum()) + 0.0 for share in shares]


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
    block: Mapping[str, Any], name: str, only: Sequence[str] | None, factors: np.ndarray | None = None
) -> Iterator[tuple[str, Figure]]:
    """Yield names and figures of a block ``disentanglement``, those in ``only`` or, if it is None, all.

    Args:
        name: of the model, for titles.
        factors: of the training images, (N, K), as blocks do not hold their entropies. Without them the colour of
            mutual informations is in nats.
    """
    for figure, (key, title, unit) in MATRICES.items():
        if only is None or figure in only:
            whole = entropies_of(factors) if factors is not None and key == "mutual_information" else None
            yield figure, factor_matrix(block[key], block["factors"], f"{title}\n{name}", unit, whole)
