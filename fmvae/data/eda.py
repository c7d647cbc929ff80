"""Exploratory data analysis: statistics of each split, and figures."""

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fmvae.common.class_names import drawable
from fmvae.data.split import Split


def split_stats(split: Split, num_classes: int) -> dict:
    """Return image counts, and the mean, standard deviation, minimum and maximum of the pixels in [0, 1].

    With ``num_classes`` = 0 (images without labels), ``images_per_class`` is empty.
    """
    histogram = _intensity_histogram(split)  # exact for uint8, and no float copy of the images
    levels = torch.arange(256, dtype=torch.float64) / 255
    share = histogram.double() / histogram.sum()
    mean = (share * levels).sum()
    present = histogram.nonzero().flatten()
    return {
        "num_images": len(split),
        "images_per_class": split.labels.bincount(minlength=num_classes).tolist() if num_classes else [],
        "pixel_mean": mean.item(),
        "pixel_std": (share * (levels - mean).square()).sum().sqrt().item(),
        "pixel_min": levels[present[0]].item(),
        "pixel_max": levels[present[-1]].item(),
    }


def _intensity_histogram(split: Split) -> Tensor:
    """Count the pixels of each of the 256 grey levels: (256,), on the CPU."""
    return torch.bincount(split.images.flatten(), minlength=256).cpu()


def _show(axes: Axes, image: Tensor) -> None:
    """Draw one image (C, H, W) in [0, 1], grey or RGB."""
    pixels = image.cpu().numpy()
    axes.imshow(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)
    axes.axis("off")


def _in_lines(name: str, most: int) -> str:
    """Return a name in lines of at most so many characters."""
    return "\n".join(textwrap.wrap(name, most))


def labelled_batch(images: Tensor, names: Sequence[str] | None) -> Figure:
    """Draw images (N, C, H, W) in [0, 1] in a square grid, each with its class name above it if it has one."""
    side = int(len(images) ** 0.5)
    figure = Figure(figsize=(1.5 * side, 1.7 * side), layout="constrained")
    figure.suptitle(f"{side * side} training images, in random order")
    panels = figure.subplots(side, side, squeeze=False).flat
    for axes, image, name in zip(panels, images, names or [""] * len(images), strict=False):
        _show(axes, image)
        axes.set_title(_in_lines(name, 18), fontsize=9)
    return figure


def eda_figures(splits: Sequence[Split], class_names: Sequence[str] | None) -> dict[str, Figure]:
    """Return the four figures of ``ImageData.perform_eda`` by name; without classes, only the two of pixels."""
    if class_names is None:
        return {"pixel_intensity": _pixel_intensity(splits), "mean_intensity": _mean_intensity(splits[0], None)}
    return {
        "class_distribution": _class_distribution(splits, class_names),
        "pixel_intensity": _pixel_intensity(splits),
        "mean_intensity": _mean_intensity(splits[0], class_names),
        "class_means": _class_means(splits[0], class_names),
    }


def _class_distribution(splits: Sequence[Split], class_names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    figure.suptitle("Images per class")
    positions = np.arange(len(class_names))
    for axes, split in zip(figure.subplots(1, len(splits)), splits, strict=True):
        counts = split.labels.bincount(minlength=len(class_names)).cpu().numpy()
        bars = axes.barh(positions, counts, color="#4477aa")
        axes.bar_label(bars, fontsize=8, padding=2)
        axes.set_yticks(positions, drawable(class_names))
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.set_xlabel("images")
        axes.set_title(f"{split.name} ({len(split):,} images)")
    return figure


def _pixel_intensity(splits: Sequence[Split]) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for split in splits:
        histogram = _intensity_histogram(split).double()
        axes.step(np.arange(256) / 255, histogram / histogram.sum(), where="mid", label=split.name, alpha=0.8)
    zero = (splits[0].images == 0).double().mean().item()
    axes.set(
        title=f"Pixel intensities ({zero:.0%} of training pixels are exactly 0)",
        xlabel="intensity (0 black, 1 white)",
        ylabel="share of pixels (log scale)",
        yscale="log",
    )
    axes.legend()
    return figure


def _mean_intensity(split: Split, class_names: Sequence[str] | None) -> Figure:
    means = split.images.flatten(1).double().mean(1).div(255).cpu()
    labels = split.labels.cpu()
    figure = Figure(figsize=(11 if class_names else 6, 4.2), layout="constrained")
    figure.suptitle(f"Mean intensity of each image, {split.name} split")
    overall, *others = figure.subplots(1, 2 if class_names else 1, squeeze=False)[0]
    overall.hist(means.numpy(), bins=60, color="#4477aa")
    overall.set(xlabel="mean intensity of an image", ylabel="images")
    if class_names is None:
        return figure
    overall.set_title("all classes")
    (per_class,) = others
    positions = range(len(class_names))
    groups = [means[labels == c].numpy() for c in positions]
    per_class.boxplot(groups, positions=positions, orientation="horizontal", showfliers=False, widths=0.6)
    per_class.set_yticks(positions, drawable(class_names))
    per_class.invert_yaxis()
    per_class.set(xlabel="mean intensity of an image", title="by class (quartiles; whiskers 1.5 IQR)")
    return figure


def _class_means(split: Split, class_names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    figure.suptitle(f"Mean image of each class, {split.name} split")
    names, columns = drawable(class_names), (len(class_names) + 1) // 2
    for c, axes in enumerate(figure.subplots(2, columns, squeeze=False).flat):
        axes.axis("off")
        if c < len(class_names):
            if len(members := split.images[split.labels == c]):
                _show(axes, members.double().mean(0).div(255))
            axes.set_title(_in_lines(names[c], 18), fontsize=11)
    return figure
