"""What is known of each number that is measured: its tag, how it is printed, and which values are better.

Reports and listings read results from files, where no measure can be imported: this module needs no torch. The
columns of the measures that come with fmvae are here; a measure of one's own stores its columns in its block.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from fmvae.errors import ConfigError

Direction = Literal["lower", "higher"]
Place = Literal["table", "hparams", "curve", "status"]
EVERYWHERE: tuple[Place, ...] = ("table", "hparams", "curve")
NATS, SHARE = "nats per image", "share"
STORED = ("tag", "header", "unit", "digits", "direction")  # of a column of one's own, in its block
# of a block: no numbers to compare runs by
NO_NUMBERS = ("settings", "per_class", "num_images", "columns")


@dataclass(frozen=True)
class Column:
    """One number of a measure.

    Args:
        tag: where it is in the measure's block, as ``entropy`` or ``generated/overall``. Outside of the measure
            the tag begins with its group, as ``accuracy/generated/overall``. ``{K}`` stands for a whole number.
        header: above its column in tables, and in the titles of charts.
        unit: of the number; ``share`` is printed in per cent.
        digits: after the point.
        direction: which values are better; None for neither. Tables print the best in bold, and a search needs it.
        places: where it is shown beside results.json, table.csv and TensorBoard's scalars: ``table`` (a report's),
            ``hparams`` (TensorBoard's), ``curve`` (against beta), ``status`` (a line for each run of a sweep).
        chart: the title of its chart in TensorBoard's Custom Scalars; columns of one title share a chart.
        pattern: the regular expression of the tags on that chart, if they are not this tag alone.
        counted: the place in results.json of the number of images that it is measured on.
        floor: the tag of what a perfect model would score.
        note: for a table's caption, with ``{header}``, ``{images}`` and ``{floor}``.
    """

    tag: str
    header: str
    unit: str = ""
    digits: int = 2
    direction: Direction | None = None
    places: tuple[Place, ...] = EVERYWHERE
    chart: str = ""
    pattern: str = ""
    counted: str = ""
    floor: str = ""
    note: str = ""

    @property
    def share(self) -> bool:
        return self.unit == SHARE

    def matches(self, tag: str) -> bool:
        return self._at(tag) is not None

    def at(self, tag: str) -> Column | None:
        """This column with a number's own tag in place of ``{K}``; None if the tag is another's."""
        if (found := self._at(tag)) is None:
            return None
        return replace(self, tag=tag, header=self.header.replace("{K}", found[1])) if found.groups() else self

    def _at(self, tag: str) -> re.Match[str] | None:
        before, slot, after = self.tag.partition("{K}")
        return re.fullmatch(re.escape(before) + r"(\d+)" * bool(slot) + re.escape(after), tag)

    def within(self, name: str) -> Column:
        """This column of the measure ``name``, with its whole tag."""
        tag = f"{group_of(name)}/{self.tag}"
        pattern = self.pattern or re.escape(tag).replace(re.escape("{K}"), "[0-9]+") + "$"
        return replace(self, tag=tag, pattern=pattern, counted=self.counted or name)

    def stored(self) -> dict[str, Any]:
        """As it is written into the block of a measure of one's own."""
        return {key: getattr(self, key) for key in STORED}

    @classmethod
    def read(cls, stored: Any) -> Column | None:
        """A column of a stored block; None if it is none."""
        if not isinstance(stored, Mapping) or stored.keys() != set(STORED):
            return None
        texts = all(isinstance(stored[key], str) for key in ("tag", "header", "unit"))
        digits = type(stored["digits"]) is int and 0 <= stored["digits"] <= 20
        known = stored["direction"] in (None, "lower", "higher")
        return cls(**stored) if texts and digits and known else None


def _distances(features: str, digits: int) -> tuple[Column, ...]:
    """The numbers of ``fid/<features>``."""

    def distance(tag: str, header: str, *, floor: str = f"fid/{features}/floor", digits: int = digits) -> Column:
        """One that no table shows; floors have no direction."""
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


FEATURES = {"resnet18": 3, "pixels": 2}  # of distances, with the digits of these
# by measure, in the order in which tables show them
BLOCKS: dict[str, tuple[Column, ...]] = {
    "test": (
        Column(
            "neg_elbo",
            "−ELBO",
            NATS,
            direction="lower",
            places=(*EVERYWHERE, "status"),
            chart="negative ELBO and its importance-weighted bound",
        ),
        Column("recon", "recon", NATS, direction="lower", places=("table", "hparams"), chart="reconstruction"),
        Column("kl", "KL", NATS, places=("table", "hparams"), chart="KL"),
        Column("objective", "objective", NATS, direction="lower", places=("hparams", "status")),
        Column(
            "recon_at_mean",
            "recon at the mean",
            NATS,
            direction="lower",
            places=("hparams",),
            chart="reconstruction",
        ),
        Column("objective_at_mean", "objective at the mean", NATS, direction="lower", places=()),
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
        Column("total_correlation", "total correlation", "nats", 3, "lower", ()),
        Column("linear_probe_accuracy", "linear probe", SHARE, direction="higher", places=()),
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
}
GROUPS = {"iwae": "test"}  # of tags, where it is not the measure's own name
# what results.json and TensorBoard name otherwise
RESERVED = (
    *("run", "config_sha256", "content_sha256", "checkpoint", "validation", "provenance"),
    *("train", "val", "schedule", "figures", "training", "config", "loss"),
)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # of a measure of one's own
WORDS = ("neg_elbo", "iwae", "fid", "accuracy")  # that ``objective`` takes beside tags


def group_of(name: str) -> str:
    """What the tags of a measure's numbers begin with."""
    return GROUPS.get(name, name)


def kinds() -> list[str]:
    """The top-level names in results.json of the measures that come with fmvae."""
    return list(dict.fromkeys(name.partition("/")[0] for name in BLOCKS))


def built_in_columns() -> list[Column]:
    """The columns of all measures that come with fmvae, with whole tags, in the order of tables."""
    return [column.within(name) for name, columns in BLOCKS.items() for column in columns]


def numbers(block: Any, tag: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a block by their tags in it; no lists, settings, counts or values of single classes."""
    if isinstance(block, Mapping):
        for name, child in block.items():
            if name not in NO_NUMBERS:
                yield from numbers(child, f"{tag}/{name}".lstrip("/"))
    elif isinstance(block, int | float) and not isinstance(block, bool):
        yield tag, block


def columns_of(name: str, block: Mapping[str, Any]) -> list[Column]:
    """The columns of the numbers in a stored block, with whole tags.

    Of ``test`` every number has one: what is not listed here is a part of the objective, in nats per image.
    """
    listed = BLOCKS.get(name)
    if listed is None:
        stored = block.get("columns")
        listed = [column for entry in stored if (column := Column.read(entry))] if isinstance(stored, list) else []
    tags = dict(numbers(block))
    found = [at for column in listed for tag in tags if (at := column.at(tag))]
    if name == "test":
        others = (tag for tag in tags if not any(column.matches(tag) for column in listed))
        found += [Column(tag, tag, NATS, places=("table", "curve")) for tag in others]
    return [column.within(name) for column in found]


def in_table_order(columns: Iterable[Column]) -> list[Column]:
    """Each tag's first column: those of ``BLOCKS`` in its order, other parts of the objective behind the KL."""
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


def word_tag(objective: str, evaluation: Mapping[str, Any]) -> str:
    """The tag that a value of the key ``objective`` stands for; of several features ``fid`` means the first."""
    features = next(iter(evaluation["fid"]["features"]), "none")
    return {
        "neg_elbo": "test/neg_elbo",
        "iwae": f"test/iwae_{evaluation['iwae']['num_samples']}",
        "fid": f"fid/{features}/generation",
        "accuracy": "accuracy/generated/overall",
    }.get(objective, objective)


def check_objective_name(objective: str, own: Collection[str] = ()) -> None:
    """Refuse a search's ``objective`` that is no word, and no tag of any measure there is.

    Args:
        own: the names of measures of one's own; which numbers they have is seen when they are made.

    Raises:
        ConfigError: with the nearest ones.
    """
    listed = built_in_columns()
    known = objective in WORDS or any(column.matches(objective) for column in listed)
    if known or objective.partition("/")[0] in own:
        return
    problem = f"{objective!r} is not one of {', '.join(WORDS)}, nor the tag of a measured number"
    close = nearest(objective, [*WORDS, *(column.tag.replace("{K}", "64") for column in listed)])
    way_out = f"did you mean {close}?" if close else "give a word, or a tag, as latent/active_units"
    raise ConfigError("objective", problem, way_out)


def nearest(given: str, tags: Collection[str]) -> str:
    """The tags that were probably meant, by the whole tag or by its last part; empty if none is near."""
    last = {tag.rpartition("/")[2]: tag for tag in reversed([*tags])}
    close = difflib.get_close_matches(given, [*tags], 2)
    close += [last[leaf] for leaf in difflib.get_close_matches(given.rpartition("/")[2], [*last], 2, cutoff=0.75)]
    return " or ".join(dict.fromkeys(close[:2] if len(close) > 1 else close))
