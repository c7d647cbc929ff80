"""The base class of datasets: three splits of uint8 images with labels and class names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fmvae import rng
from fmvae.common.class_names import drawable
from fmvae.data.binarize import Binarize, binarized, check_binarize, fixed_draw
from fmvae.data.checks import (
    Array,
    checked_factors,
    checked_images,
    checked_labels,
    checked_names,
    digests_of,
)
from fmvae.data.split import Split
from fmvae.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SaveFigure = Callable[[str, "Figure"], object]


class ImageData:
    """Images of one shape in three splits, all with labels or all without.

    Trainers, measures and figures read data through this class only. For your own dataset, write a subclass whose
    constructor takes the keys of its config group ``data``, reads the images, and calls this constructor::

        class Mine(ImageData):
            def __init__(self, path, *, image_shape, num_classes, val_size, batch_size, seed, device="cpu"):
                images, labels = ...  # uint8 (N, C, H, W), whole numbers (N,)
                train, val = hold_out(labels, val_size, seed=seed)
                super().__init__(
                    train=(images[train], labels[train]), val=(images[val], labels[val]), test=...,
                    num_classes=num_classes, batch_size=batch_size, device=device,
                )

    ``fmvae.data.hold_out`` and ``subset`` choose images in the same way as for Fashion-MNIST. Models read the
    image shape and the number of classes from the config (``${data.image_shape}``, ``${data.num_classes}``), so
    the config group must contain these keys too.

    Args:
        train, val, test: images and labels of each split, as tensors or arrays. Images: uint8 (N, C, H, W), 0 is
            black, C is 1 or 3, N >= 1, with the same C, H and W in all splits. Labels: integers (N,) from 0, or
            None in all three splits for data without labels.
        num_classes: labels are in [0, num_classes); None means the length of ``class_names``, or without those the
            largest label plus 1.
        class_names: a name for each class, all different; None means ``0``, ``1``, ...
        sha256: digests of the content by name, recorded with results; None computes them from the splits.
        content: a name that identifies the data, for classifiers that only know certain images; see below.
        batch_size: images per training batch.
        device: where the images are stored.
        binarize: draw black and white images, 0 or 255, in which a pixel of grey value g is white with probability
            g / 255. ``static``: each split once. ``dynamic``: the training images anew for each epoch, the others
            once. None keeps the images as they are. A subclass offers it by passing it on, with ``seed``.
        seed: the run's seed, for the draws of training images. Those of validation and test images are the same
            for all seeds, as runs are compared on them.
        factors: the ground-truth factors of each split's images by the split's name, whole numbers (N, K), if the
            data have some: factor k has the values 0, ..., ``factor_sizes[k]`` - 1.
        factor_names, factor_sizes: K names, all different, and K numbers of values.

    Attributes:
        train, val, test: the splits. For data without labels, all labels are zero. With ``binarize``, these are
            fixed draws, the same on every device; see ``train_of_epoch`` for the images to train on.
        image_shape: (C, H, W).
        num_classes: 0 without labels.
        class_names: by label; None without labels.
        sha256: digests of the content by name, before ``binarize``.
        content: ``fashion-mnist`` for the published files of Fashion-MNIST, else empty; empty with ``binarize``.
        batch_size, device, binarize: as given.
        factor_names, factor_sizes: as given; empty without factors. A split's ``factors`` are then None.

    Raises:
        DataError: images, labels or factors have a wrong type, shape or range, or a split is empty.
        ConfigError: ``batch_size`` < 1, ``binarize`` is unknown, or there is not exactly one name for each class.
    """

    # whether the config identifies the images by digests; if not, checkpoints store the digests of the data
    named_by_config: ClassVar[bool] = False
    # whether a mirrored image is as good an image of its class: the default of a classifier's trainer.flip
    mirrored: ClassVar[bool] = False

    def __init__(
        self,
        *,
        train: tuple[Array, Array | None],
        val: tuple[Array, Array | None],
        test: tuple[Array, Array | None],
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        sha256: Mapping[str, str] | None = None,
        content: str = "",
        batch_size: int = 128,
        device: torch.device | str = "cpu",
        binarize: Binarize | None = None,
        seed: int = 0,
        factors: Mapping[str, Array] | None = None,
        factor_names: Sequence[str] = (),
        factor_sizes: Sequence[int] = (),
    ):
        check_binarize(binarize)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError("data.batch_size", f"{batch_size!r} images per batch", "give a whole number >= 1")
        given = {"train": train, "val": val, "test": test}
        images = {name: checked_images(name, part[0]) for name, part in given.items()}
        shapes = {name: tuple(part.shape[1:]) for name, part in images.items()}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise DataError("data", f"the splits' images differ in shape: {told}", "give all one (C, H, W)")
        without = [name for name, part in given.items() if part[1] is None]
        if without and len(without) < len(given):
            problem = f"the {' and '.join(without)} split has no labels, but another has"
            raise DataError("data", problem, "give labels for all splits, or for none")
        labels = {name: checked_labels(name, part[1], len(images[name])) for name, part in given.items()}

        self.factor_names, self.factor_sizes = tuple(factor_names), tuple(factor_sizes)
        of_images = checked_factors(factors, self.factor_names, self.factor_sizes, images)
        self.batch_size, self.device = batch_size, torch.device(device)
        self.binarize: Binarize | None = binarize
        self.content = "" if binarize else content
        self.image_shape: tuple[int, ...] = shapes["train"]
        self.class_names = None if without else checked_names(labels, num_classes, class_names)
        self.num_classes = len(self.class_names or ())
        if without and (num_classes or class_names):
            problem = f"{num_classes or len(class_names or ())} classes, but the data have no labels"
            key = "data.num_classes" if num_classes else "data.class_names"
            raise ConfigError(key, problem, f"give {key}={0 if num_classes else 'null'}, or labels")
        self.sha256 = dict(sha256) if sha256 else digests_of(images, {} if without else labels)
        self._seed, self._grey, self._of_epoch = seed, None, None
        if binarize:
            self._grey = images["train"].to(self.device) if binarize == "dynamic" else None
            images = {name: fixed_draw(name, part, seed) for name, part in images.items()}
        self.train, self.val, self.test = (
            Split(
                name,
                images[name].to(self.device),
                labels[name].to(self.device),
                of_images[name].to(self.device) if of_images else None,
            )
            for name in given
        )

    @classmethod
    def from_arrays(
        cls,
        images: Array,
        labels: Array | None = None,
        class_names: Sequence[str] | None = None,
        *,
        test: tuple[Array, Array | None] | None = None,
        val_size: int | None = None,
        num_test: int | None = None,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
        binarize: Binarize | None = None,
    ) -> ImageData:
        """Make a dataset of images in memory, which trainers, measures and figures take.

        Args:
            images: uint8, or floats in [0, 1], which are brought to the nearest of 256 levels; (N, H, W),
                (N, H, W, C) or (N, C, H, W), C = 1 or 3.
            labels: whole numbers (N,) from 0; None for images without labels.
            class_names: a name for each class.
            test: images and labels for testing; None holds ``num_test`` of ``images`` out, the same for all seeds.
            val_size: number of validation images, which are held out; None is a tenth, as for ``num_test``.
            batch_size, seed, device, binarize: as for the class.

        Raises:
            DataError: images or labels have a wrong type, shape or range.
            ConfigError: a number does not fit.
        """
        from fmvae.data.parts import three_parts
        from fmvae.data.pixels import from_memory

        parts = three_parts(
            from_memory("images", images, labels),
            from_memory("test images", *test) if test else None,
            val_size=val_size,
            num_train=None,
            num_test=num_test,
            seed=seed,
        )
        settings = {"batch_size": batch_size, "device": device, "binarize": binarize, "seed": seed}
        return ImageData(
            train=parts["train"], val=parts["val"], test=parts["test"], class_names=class_names, **settings
        )

    @classmethod
    def completed(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return values for keys of the config group ``data`` that follow from the files that it names.

        It is called while a config is composed, before anything refers to these keys, if ``image_shape`` or
        ``num_classes`` is null. So models get the shape of images that only the files know, and a digest among the
        values gives other files another run.

        Args:
            node: the config group, with references resolved.

        Raises:
            FmvaeError: the files are missing or cannot be used.
        """
        return {}

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.val, self.test

    def train_of_epoch(self, epoch: int) -> Split:
        """Return the training split of an epoch, from 1: ``train``, or its own draw with ``binarize=dynamic``.

        The draw depends on the seed and the epoch only. All epochs are drawn into one buffer, whose address a CUDA
        graph may hold: the split of an epoch is valid until another is asked for.
        """
        if self._grey is None:
            return self.train
        if self._of_epoch is None:
            self._of_epoch = replace(self.train, images=torch.empty_like(self._grey))
        draws = rng.stream(self._seed, "binarize", epoch, self.device)
        binarized(self._grey, draws, out=self._of_epoch.images)
        return self._of_epoch

    @property
    def labelled(self) -> bool:
        """Whether images have classes. If not, every label is 0 and has no meaning."""
        return self.class_names is not None

    @property
    def factors(self) -> Tensor | None:
        """The training images' ground-truth factors (N, K); None for data without factors."""
        return self.train.factors

    @property
    def renders(self) -> bool:
        """Whether these data offer ``render``."""
        return type(self).render is not ImageData.render

    def render(self, factors: Tensor) -> Tensor:
        """Return the images (N, C, H, W) uint8 that have these factors (N, K), on the data's device.

        Raises:
            DataError: the data cannot make images, or the factors are no whole numbers (N, K) in range.
        """
        problem = "images cannot be made from factors"
        raise DataError(type(self).__name__, problem, "choose data that can, as data=sprites")

    # --- a first look -----------------------------------------------------------------------------------------

    def report_data_stats(self) -> dict[str, dict]:
        """Return per split: the images in total and per class, and mean, standard deviation and range of pixels.

        Without labels, ``images_per_class`` is empty.
        """
        from fmvae.data.eda import split_stats

        return {split.name: split_stats(split, self.num_classes) for split in self.splits}

    def sanity_check(self, save: SaveFigure | None = None) -> Figure:
        """Draw a training batch of 5x5 images with class names; ``save(name, figure)`` is called with it."""
        from fmvae.data.eda import labelled_batch

        images, labels = next(self.train.batches(25, rng.stream(0, "shuffle")))
        names = drawable(self.class_names or ())
        figure = labelled_batch(images, names and [names[label] for label in labels.tolist()])
        if save:
            save("sanity_check", figure)
        return figure

    def perform_eda(self, save: SaveFigure | None = None) -> dict[str, Figure]:
        """Draw class distribution, pixel intensities, mean intensity per image, and class means, a figure each.

        Without labels, only the two of intensities. With factors, also how often each value occurs, and images in
        which one factor varies if the data can render them. ``save(name, figure)`` is called with each, for
        instance to write a PNG and show it in TensorBoard.
        """
        from fmvae.data.eda import eda_figures
        from fmvae.data.factor_figures import factor_figures

        figures = eda_figures(self.splits, self.class_names)
        if self.factor_names:
            render = self.render if self.renders else None
            figures |= factor_figures(self.splits, self.factor_names, self.factor_sizes, render)
        for name, figure in figures.items():
            if save:
                save(name, figure)
        return figures
