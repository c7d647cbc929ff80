"""The description of each measured number: its tag, how to print it, and which values are better.

Reports and listings read results from files without importing measures, so this module needs no torch. It has the
columns of fmvae's own measures; the columns of a user's measure are stored in that measure's block of results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fmvae.evaluation.column import EVERYWHERE, NATS, NEG_ELBO, SHARE, Column, Direction, Place

# from what latents are drawn for generation (fmvae.evaluation.samplers), and whether it has a log density
HAS_DENSITY = {"prior": True, "gmm": True, "flow": True, "two_stage": False, "aggregate": False}
SAMPLERS = tuple(HAS_DENSITY)
IN_BRACKETS = "In brackets: what latents were drawn from instead of the prior; the numbers of images are the same."
IN_BATCHES = "(in batches)"  # ends the headers of an objective's parts
PRECISION_CHECK = "precision_check"  # entry of a block: the numbers by which bf16 was chosen for its features
COUNTS = ("num_images", "num_draws", "num_twins")
# entries of a block that are not numbers by which to compare runs
NO_NUMBERS = ("settings", "per_class", "columns", "fitted", PRECISION_CHECK, *COUNTS)
# numbers that earlier versions stored under another tag, and their tags today
RENAMED = {"latent/total_correlation": "latent/gaussian_total_correlation"}


def _distances(features: str, digits: int) -> tuple[Column, ...]:
    """Return the columns of ``fid/<features>``."""

    def distance(tag: str, header: str, *, floor: str = f"fid/{features}/floor", digits: int = digits) -> Column:
        """Return a distance that no table shows; floors and standard errors have no direction."""
        direction: Direction | None = "lower" if floor else None
        return Column(tag, f"{header} {features}", "distance", digits, direction, (), floor=floor)

    def share(tag: str, header: str) -> Column:
        return Column(tag, f"{header} {features}", SHARE, direction="higher", places=())

    generation, reconstruction = distance("generation", "FID"), distance("reconstruction", "reconstruction FID")
    return (
        replace(
            generation,
            places=EVERYWHERE,
            chart="FID of samples",
            pattern="fid/[^/]+/generation$",
            note="{header}: {images} images{floor}.",
        ),
        replace(reconstruction, chart="FID of reconstructions", pattern="fid/[^/]+/reconstruction$"),
        distance("generation_se", "standard error of FID", floor=""),
        distance("floor", "floor of FID", floor=""),
        distance("kid", "KID", floor=f"fid/{features}/kid_floor", digits=6),
        distance("kid_floor", "floor of KID", floor="", digits=6),
        share("precision", "precision"),
        share("recall", "recall"),
        Column("density", f"density {features}", digits=3, direction="higher", places=()),
        share("coverage", "coverage"),
        share("as_asked", "accuracy by"),
    )


def _sampled(sampler: str, features: str, digits: int) -> tuple[Column, ...]:
    """Return the columns of ``samplers/<sampler>/<features>``: those of generated images, and their neighbours."""
    block, found = f"samplers/{sampler}/{features}", []
    for column in _distances(features, digits):
        if column.tag != "reconstruction":
            floor = column.floor.replace(f"fid/{features}", block)
            found.append(replace(column, header=f"{column.header} ({sampler})", floor=floor))
    chart, places = f"FID of samples, by sampler ({features})", _places(sampler, features)
    found[0] = replace(found[0], places=places, chart=chart, pattern="", note=IN_BRACKETS)

    def neighbour(tag: str, header: str, unit: str = "distance", direction: Direction | None = None) -> Column:
        return Column(tag, f"{header} {features} ({sampler})", unit, digits, direction, ())

    return (
        *found,
        neighbour("nearest_train", "distance to the nearest training image"),
        neighbour("nearest_test", "distance to the nearest test image"),
        neighbour("nearest_ratio", "nearest training image / nearest test image", ""),
        replace(neighbour("nearer_train", "nearer to a training image", SHARE), digits=2),
        replace(neighbour("real_nearer_train", "test images nearer to a training image", SHARE), digits=2),
        neighbour("real_nearest_train", "test images' distance to the nearest training image"),
        neighbour("real_nearest_test", "test images' distance to the nearest test image"),
    )


def _places(sampler: str, features: str = "") -> tuple[Place, ...]:
    """Return where a number of generated images is shown: the prior's has columns of its own, outside of samplers.

    HParams shows a column for every number that it is told of, measured or not, so it gets the default sampler's;
    numbers in pixels are in tables only.
    """
    if sampler == "prior":
        return ()
    if features == "pixels":
        return ("table",)
    return EVERYWHERE if sampler == "gmm" else ("table", "curve")


def _bound(sampler: str) -> tuple[Column, ...]:
    """Return the columns of ``samplers/<sampler>/bound``."""
    note = "{header}: of another model, whose prior is the fitted density, on {images} of them."
    chart = "negative ELBO and its importance-weighted bound"
    places: tuple[Place, ...] = ("table", "hparams") if sampler == "gmm" else ("table",)
    header = f"IWAE {{K}} ({sampler} as prior)"
    return (Column("iwae_{K}", header, NATS, direction="lower", places=places, chart=chart, note=note),)


def _part(tag: str, header: str, direction: Direction | None = None) -> tuple[Column, Column]:
    """Return the columns of a part of the KL and of its standard error over draws."""
    together = "MI, TC and dimension-wise KL"
    note = f"{together}: of {{images}} training images."
    part = Column(tag, header, NATS, 3, direction, chart=together, note=note, split="training set", ranked=False)
    return part, Column(f"{tag}_se", f"standard error of {header}", NATS, 3, places=())


RENDERED = ("factor_vae", "beta_vae")  # the scores of images that are rendered on demand


def _score(tag: str, header: str, *, shown: bool = False, split: str = "test set") -> tuple[Column, ...]:
    """Return the columns of a score of disentanglement, and of its two levels, which have no direction."""
    places: tuple[Place, ...] = ("table", "curve") if shown else ()
    score = Column(tag, header, "", 3, "higher", places, "disentanglement", split=split)
    if shown:
        score = replace(score, note="{header}: of {images} images{levels}.")
    levels = {"chance": f"{header} by chance", "untrained": f"{header} untrained"}
    return score, *(Column(f"{level}/{tag}", said, "", 3, places=()) for level, said in levels.items())


FEATURES = {"resnet18": 3, "pixels": 2}  # features of distances, with the digits to print
# fitted samplers with a log density, which gives a bound
DENSITIES = tuple(name for name, is_density in HAS_DENSITY.items() if is_density and name != "prior")
# by measure, in the order in which tables show them
BLOCKS: dict[str, tuple[Column, ...]] = {
    "test": (
        Column(
            "neg_elbo",
            NEG_ELBO,
            NATS,
            direction="lower",
            places=(*EVERYWHERE, "status"),
            chart="negative ELBO and its importance-weighted bound",
        ),
        Column(
            "recon",
            "recon",
            NATS,
            direction="lower",
            places=("table", "hparams"),
            chart="reconstruction",
            ranked=False,
        ),
        Column("kl", "KL", NATS, places=("table", "hparams"), chart="KL"),
        Column("objective", "objective", NATS, direction="lower", places=("hparams", "status"), ranked=False),
        Column(
            "recon_at_mean",
            "recon at the mean",
            NATS,
            direction="lower",
            places=("hparams",),
            chart="reconstruction",
            ranked=False,
        ),
        Column("objective_at_mean", "objective at the mean", NATS, direction="lower", places=(), ranked=False),
        Column("sigma", "learned sigma", "pixel intensity", 4, places=("table", "hparams")),
    ),
    "iwae": (
        Column(
            "iwae_{K}",
            "IWAE {K}",
            NATS,
            direction="lower",
            places=("table", "hparams"),
            chart="negative ELBO and its importance-weighted bound",
            note="IWAE: on {images} of them.",
        ),
    ),
    **{f"fid/{features}": _distances(features, digits) for features, digits in FEATURES.items()},
    "latent": (
        Column("active_units", "active units", "dimensions", 0, chart="active units"),
        Column("aggregate_mean_norm", "‖mean of q(z)‖", digits=3, direction="lower", places=()),
        Column("aggregate_covariance_gap", "‖covariance of q(z) − I‖", digits=3, direction="lower", places=()),
        Column("aggregate_kl", "aggregate KL", "nats", 3, "lower", ()),
        Column("gaussian_total_correlation", "total correlation of q(z)'s Gaussian", "nats", 3, "lower", ()),
        Column("linear_probe_accuracy", "linear probe", SHARE, direction="higher", places=()),
    ),
    "decomposition": (
        *_part("mi", "MI"),
        *_part("tc", "TC", "lower"),
        *_part("dimension_wise", "dimension-wise KL"),
        *(replace(column, places=(), chart="", note="") for column in _part("kl", "KL of the draws")),
    ),
    "disentanglement": (
        *_score("mig", "MIG", shown=True, split="training images"),
        *_score("sap", "SAP", shown=True),
        *_score("dci_disentanglement", "DCI disentanglement", shown=True),
        *_score("dci_completeness", "DCI completeness"),
        *_score("dci_informativeness", "DCI informativeness"),
        *_score("modularity", "modularity", shown=True, split="training images"),
        *_score("explicitness", "explicitness"),
        *_score("infom", "InfoM", split="training images"),
        *_score("infoc", "InfoC", split="training images"),
        *_score("factor_vae", "FactorVAE score", shown=True, split="rendered images"),
        *_score("beta_vae", "beta-VAE score", split="rendered images"),
    ),
    "accuracy": (
        Column(
            "generated/overall",
            "accuracy",
            SHARE,
            direction="higher",
            counted="accuracy/generated",
            note="Accuracy: of the classifier on {images} generated images.",
        ),
        Column("real/overall", "accuracy on test images", SHARE, places=()),
    ),
    **{
        f"samplers/{sampler}/{features}": _sampled(sampler, features, digits)
        for sampler in SAMPLERS
        for features, digits in FEATURES.items()
    },
    **{
        f"samplers/{sampler}/accuracy": (
            Column(
                "generated/overall",
                f"accuracy ({sampler})",
                SHARE,
                direction="higher",
                places=_places(sampler),
                counted=f"samplers/{sampler}/accuracy/generated",
                note=IN_BRACKETS,
            ),
        )
        for sampler in SAMPLERS
    },
    **{f"samplers/{sampler}/bound": _bound(sampler) for sampler in DENSITIES},
}
# names that results.json or TensorBoard use for something else
RESERVED = (
    *("run", "config_sha256", "content_sha256", "checkpoint", "validation", "provenance"),
    *("train", "val", "schedule", "figures", "training", "config", "loss"),
)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # names allowed for a user's measure


def kinds() -> list[str]:
    """Return the top-level names in results.json of fmvae's own measures."""
    return list(dict.fromkeys(name.partition("/")[0] for name in BLOCKS))


def built_in_columns() -> list[Column]:
    """Return the columns of all of fmvae's own measures, with full tags, in the order of tables."""
    return [column.within(name) for name, columns in BLOCKS.items() for column in columns]


def numbers(block: Any, tag: str = "") -> Iterator[tuple[str, float]]:
    """Yield a block's numbers with their tags, without lists, settings, counts and values of single classes."""
    if isinstance(block, Mapping):
        for name, child in block.items():
            if name not in NO_NUMBERS:
                yield from numbers(child, f"{tag}/{name}".lstrip("/"))
    elif isinstance(block, int | float) and not isinstance(block, bool):
        yield tag, block


def columns_of(name: str, block: Mapping[str, Any]) -> list[Column]:
    """Return the columns of the numbers in a stored block, with full tags.

    Every number of ``test`` has one: a number not in ``BLOCKS`` is a part of the objective, a mean over batches of
    what the objective computes. Its unit is not known, and a part may have the name of a measured number.
    """
    listed = BLOCKS.get(name)
    if listed is None:
        stored = block.get("columns")
        listed = [column for entry in stored if (column := Column.read(entry))] if isinstance(stored, list) else []
    tags = dict(numbers(block))
    found = [at for column in listed for tag in tags if (at := column.at(tag))]
    if name == "test":
        others = (tag for tag in tags if not any(column.matches(tag) for column in listed))
        found += [Column(tag, f"{tag} {IN_BATCHES}", digits=4, places=("table", "curve")) for tag in others]
    return [column.within(name) for column in found]


def in_table_order(columns: Iterable[Column]) -> list[Column]:
    """Sort columns in the order of ``BLOCKS``, other parts of the objective after the KL; drop repeated tags."""
    first: dict[str, Column] = {}
    for column in columns:
        first.setdefault(column.tag, column)
    listed = built_in_columns()

    def rank(column: Column) -> tuple[int, tuple[int, str]]:
        place = next((i for i, known in enumerate(listed) if known.matches(column.tag)), None)
        if place is None:
            place = len(BLOCKS["test"]) - 1 if column.tag.startswith("test/") else len(listed)
        return place, ((len(column.tag), column.tag) if place < len(listed) else (0, ""))  # IWAE 8 before IWAE 64

    return sorted(first.values(), key=rank)
