"""A run's results file: measures by name, each with its origin, and what of an earlier file may be kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmvae.errors import RunError
from fmvae.evaluation.columns import BLOCKS, Column, columns_of, group_of, kinds, numbers
from fmvae.runs.files import move_aside, read_record, write_record

log = logging.getLogger("fmvae")


@dataclass
class Results:
    """Measures of one checkpoint on one dataset, to be written as a whole.

    Args:
        source: the run, config and checkpoint; with ``data_sha256``, what two results must share to be merged.
        data_sha256: of the dataset's files, by name.
        measures: blocks by name, as ``fid/pixels``.
        origins: the provenance of each.
    """

    source: dict[str, Any]
    data_sha256: Mapping[str, str]
    measures: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Any] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        """Take over what a file holds of the same source and data.

        One that is damaged, or of an older version, is moved aside with a warning: its numbers may be wanted.
        """
        if not path.exists():
            return
        try:
            stored = read_record(path)
            origins = stored["provenance"]["evaluation"]
            measures = {name: at(stored, name) for name in origins}
            same = all(stored[key] == value for key, value in self.source.items())
            same = same and stored["provenance"]["data_sha256"] == self.data_sha256
        except (RunError, LookupError, TypeError, AttributeError) as error:
            aside = move_aside(path)
            reason = getattr(error, "problem", "not of this version")
            log.warning("%s: %s; moved to %s, and measured again", path, reason, aside.name)
            return
        if same:
            self.measures, self.origins = measures, origins

    def write(self, path: Path, fid_path: Path, training: Mapping[str, Any], **others: Any) -> dict[str, Any]:
        """Write all of it, and the distances into a file of their own too; returns what was written.

        Args:
            training: the provenance of the checkpoint.
            others: further entries.
        """
        provenance = {"training": training, "evaluation": self.origins, "data_sha256": self.data_sha256}
        results = {**self.source, **others, **nested(self.measures), "provenance": provenance}
        if "fid" in results:
            write_record(fid_path, {**results["fid"], **self.source, "provenance": provenance})
        write_record(path, results)
        return results


def at(results: Mapping[str, Any], name: str) -> Any:
    """The block ``fid/pixels`` of results; LookupError if there is none."""
    for part in name.split("/"):
        results = results[part]
    return results


def nested(measures: Mapping[str, Any]) -> dict[str, Any]:
    """``fid/pixels`` as ``pixels`` in ``fid``."""
    tree: dict[str, Any] = {}
    for name, block in measures.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = block
    return tree


def flat_scalars(results: Mapping[str, Any]) -> dict[str, float]:
    """The final numbers by tag: ``test/...``, ``fid/<features>/...``, ``<measure of one's own>/...``."""
    return {
        f"{group_of(name)}/{tag}": value
        for name, block in blocks(results).items()
        for tag, value in numbers(block)
    }


def columns_in(results: Mapping[str, Any]) -> list[Column]:
    """The columns of a file's numbers, with whole tags."""
    return [column for name, block in blocks(results).items() for column in columns_of(name, block)]


def blocks(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The measures' blocks by name, as ``fid/pixels``: those of fmvae, and those that bring their columns."""
    found: dict[str, Mapping[str, Any]] = {}
    nested = {name.partition("/")[0] for name in BLOCKS if "/" in name}
    for name, node in results.items():
        if not isinstance(node, Mapping):
            continue
        if name in nested:
            found |= {f"{name}/{part}": block for part, block in node.items() if isinstance(block, Mapping)}
        elif name in kinds() or isinstance(node.get("columns"), list):
            found[name] = node
    return found
