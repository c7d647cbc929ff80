"""Read the runs in one or more folders. Each run counts once, and damaged files are reported."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmvae.common.text import one_line
from fmvae.common.trees import flat
from fmvae.config.identity import NAMED, RunIdentity, whole
from fmvae.config.shorthand import shortened
from fmvae.config.stored import NotAVAE, read_config
from fmvae.errors import ConfigError, FmvaeError, RunError
from fmvae.evaluation.columns import Column
from fmvae.runs.directory import RunDirectory, find_runs, not_a_folder
from fmvae.runs.results import blocks, columns_in, flat_scalars, read_results
from fmvae.sweeps.directory import SweepDirectory

log = logging.getLogger("fmvae")

SEEDS = ("seed", "data.seed")  # the second equals the first unless it is set


@dataclass(frozen=True)
class Run:
    """A run as a report shows it.

    Args:
        state: ``complete``, or the state in status.json; ``damaged`` if a file of a run with the status
            ``complete`` can't be used; ``classifier`` for a run that trained no VAE; ``new`` for one that its
            sweep has not begun.
        reason: for any state but ``complete``: the reason and the progress, in one line.
        config: the semantic config by dotted key; empty if it can't be read.
        scalars: the final numbers by tag; empty unless complete.
        sizes: the numbers of images they were measured on, by block (``test``, ``fid/pixels``).
        columns: the columns that describe these numbers, with whole tags; some numbers have none.
        measured: with what each block was measured (settings, images, data), as JSON by block. Numbers of blocks
            with different texts do not compare.
        best_epoch: the epoch of the checkpoint that was measured; None if it is not known.
        checkpoint: the SHA-256 of that checkpoint; empty if it is not known.
    """

    directory: RunDirectory
    name: str
    state: str
    reason: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    measured: Mapping[str, str] = field(default_factory=dict)
    best_epoch: int | None = None
    checkpoint: str = ""

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    @property
    def model(self) -> str:
        return str(self.config.get("model._name_", ""))

    def word(self, group: str) -> str:
        """Return the word for the class of a group: its ``_name_``, or else the class's name without the group's.

        It is in small letters: ``elbo`` for a loss ELBO, ``standard`` for a prior StandardPrior.
        """
        named = self.config.get(f"{group}._name_")
        return named or short(self.config.get(f"{group}._target_", "")).lower().removesuffix(group)

    @property
    def conditional(self) -> bool:
        """Whether the model takes labels."""
        return "model.num_classes" in self.config

    @property
    def latent_dim(self) -> int | None:
        return self.config.get("latent_dim.value")

    @property
    def beta(self) -> float | None:
        return self.config.get("beta.value")

    @property
    def schedule(self) -> str:
        """The kind of beta's schedule, such as ``constant``."""
        return short(self.config.get("beta._target_", "")).lower()

    @property
    def order(self) -> tuple:
        """Sort key: model, z, loss, prior, beta, the rest of the config, and the seed.

        Numbers sort by value: 2 before 10. A loss or prior without a ``_name_``, the default, comes first.
        """
        rest = [(key, sortable(value)) for key, value in self.config.items() if key not in SEEDS]
        words = [sortable(self.config.get(f"{group}._name_")) for group in NAMED if group != "model"]
        main = (sortable(self.model), sortable(self.latent_dim), words, sortable(self.beta), self.schedule)
        return (*main, rest, sortable(self.config.get("seed")), sortable(self.name))


def short(target: Any) -> str:
    """Return the name of a ``_target_``'s class, without its module."""
    return str(target).rpartition(".")[2]


def sortable(value: Any) -> tuple:
    """Return a sort key: None first, then numbers by value, then texts, with the numbers in them by value."""
    if value is None:
        return (0,)
    if isinstance(value, int | float):
        return (1, value)
    parts = re.split(r"([0-9]+)", str(value))  # text and digits alternate
    return (2, tuple(int(part) if i % 2 else part for i, part in enumerate(parts)))


def collect(folders: Sequence[Path]) -> list[Run]:
    """Return the runs in all folders, in the order of :attr:`Run.order`.

    A run that is in several folders, as after a sweep on several machines, counts once: its first complete copy,
    or else its first copy. Runs that a sweep has planned and not begun are among them. Warnings name damaged runs.

    Raises:
        FmvaeError: a folder holds no runs.
    """
    found: dict[str, Run] = {}
    for folder in folders:
        for directory in _directories(folder):
            run = read_run(directory)
            known = found.get(run.name)
            if known is None or (run.complete and not known.complete):
                found[run.name] = run
    for folder in folders:
        sweep = SweepDirectory(folder.resolve())
        for name, plan in sweep.planned().items():
            if name not in found and not sweep.run(name).config.exists():
                asked = one_line(" ".join(map(shortened, plan.overrides)))
                found[name] = Run(sweep.run(name), name, "new", f"not begun yet: {asked}")
    alone = {folder.resolve() for folder in folders}  # who names a run gets its state from the caller
    for run in found.values():
        if run.state == "damaged" and run.directory.path not in alone:
            log.warning("%s: damaged, so left out: %s", run.directory, run.reason)
    return sorted(found.values(), key=lambda run: run.order)


def states(runs: Iterable[Run]) -> str:
    """Return how many of these runs are in each state, as ``1 damaged, 2 running``; empty without runs."""
    return ", ".join(f"{number} {state}" for state, number in sorted(Counter(run.state for run in runs).items()))


def _directories(folder: Path) -> list[RunDirectory]:
    try:
        return find_runs(folder)
    except ConfigError:
        problem = "no runs in it (no config.yaml)" if folder.is_dir() else not_a_folder(folder)
        raise FmvaeError(folder, problem, "name a folder of runs, as outputs/<sweep>") from None


def read_run(directory: RunDirectory) -> Run:
    """Read a run from its files. Damaged files raise no error; the run's state is then ``damaged``.

    It has numbers only if it is complete, by the rules of :meth:`RunDirectory.state`.
    """
    name, status = directory.path.name, directory.read_status()
    try:
        identity = RunIdentity.of(read_config(directory.config))
        name, config = identity.name, identity.semantic
    except NotAVAE:
        return Run(directory, name, "classifier", "not a VAE, so not in the tables")
    except ConfigError as error:
        return Run(directory, name, "damaged", one_line(f"config.yaml: {error.problem}"))
    except (OSError, LookupError, TypeError, ValueError) as error:
        return Run(directory, name, "damaged", f"config.yaml: not the config of a run ({type(error).__name__})")
    values = flat(whole(config))
    if status.get("state") != "complete":
        state, reason = _unfinished(status, values, held=directory.is_held())
        return Run(directory, name, state, reason, values)
    try:
        results = read_results(directory.results)
        if not name.endswith(f"-{str(results.get('config_sha256'))[:8]}"):
            raise RunError(directory.results, "its numbers are of another config", "")
    except (RunError, OSError) as error:
        problem = error.problem if isinstance(error, RunError) else f"not readable ({type(error).__name__})"
        return Run(directory, name, "damaged", f"results.json: {problem}", values)
    return complete_run(directory, name, values, results)


def complete_run(directory: RunDirectory, name: str, config: Mapping[str, Any], results: Mapping[str, Any]) -> Run:
    """Return the run with this semantic config, by dotted key, and these results; they may be empty."""
    numbers, sizes, columns = flat_scalars(results), dict(_sizes(results)), tuple(columns_in(results))
    measured, epoch = dict(_measured(config, results)), _node(results, "checkpoint", "epoch")
    best = epoch if type(epoch) is int else None
    sha256 = str(_node(results, "checkpoint", "sha256") or "")
    return Run(directory, name, "complete", "", config, numbers, sizes, columns, measured, best, sha256)


def _measured(config: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each block's name and, as JSON, all that its numbers depend on besides the model.

    These are its settings, the numbers of images and the test images: by the dataset's class, and by the digests
    of the test split, or of all files if none is named as such. Digests of training images may depend on the seed.
    """
    known = _node(results, "provenance", "data_sha256")
    digests = known if isinstance(known, Mapping) else {}
    of_test = {name: value for name, value in digests.items() if "test" in name or "t10k" in name}
    data = {key: config.get(key) for key in ("data._target_", "data.binarize")} | (of_test or dict(digests))
    for name, block in blocks(results).items():
        settings = block.get("settings")
        with_what = {**data, **(settings if isinstance(settings, Mapping) else {})}
        yield name, json.dumps({**with_what, **_counts(block)}, sort_keys=True)


def _counts(block: Mapping[str, Any]) -> dict[str, int]:
    return {f"{path}/num_images".lstrip("/"): size for path, size in _sizes(block) if "per_class" not in path}


def _node(node: Any, *path: str) -> Any:
    """Return the value at a path in nested mappings; None if there is none."""
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _unfinished(status: Mapping[str, Any], config: Mapping[str, Any], *, held: bool) -> tuple[str, str]:
    if not status:
        return "unknown", "status.json is missing or not readable"
    state = one_line(str(status.get("state", "unknown")))
    # after an interruption, the error is "KeyboardInterrupt: "
    reasons = [one_line(str(status["error"])).rstrip(" :")] if status.get("error") else []
    if state == "pruned":  # status.json also has the command that finishes it
        return state, reasons[0].partition("; ")[0] if reasons else ""
    if "epoch" in status:
        reasons.append(f"epoch {status['epoch']} of {config.get('trainer.epochs', '?')}")
    if state == "running" and not held:  # no process holds the lock, so status.json is outdated
        state = "partial"
        reasons.append("repeat its command to finish it")
    return state, one_line("; ".join(reasons))


def _sizes(node: Any, tag: str = "") -> Iterator[tuple[str, int]]:
    """Yield the path and the ``num_images`` of every block that has it."""
    if isinstance(node, Mapping):
        if isinstance(node.get("num_images"), int):
            yield tag, node["num_images"]
        for name, child in node.items():
            if name not in ("settings", "provenance"):
                yield from _sizes(child, f"{tag}/{name}".lstrip("/"))
