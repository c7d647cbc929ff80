"""The results file of a run: measures by name, each with its provenance. Earlier measures are kept if they fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmvae.errors import RunError
from fmvae.evaluation.column import group_of
from fmvae.evaluation.columns import BLOCKS, RENAMED, Column, columns_of, numbers
from fmvae.runs.files import move_aside, read_record, write_record

log = logging.getLogger("fmvae")


@dataclass
class Results:
    """Measures of one checkpoint on one dataset.

    Args:
        source: the run, config and checkpoint. Results are merged only if it and ``data_sha256`` are equal.
        data_sha256: SHA-256 of the dataset's files, by name.
        measures: blocks of numbers by name, such as ``fid/pixels``.
        origins: the provenance of each block.
    """

    source: dict[str, Any]
    data_sha256: Mapping[str, str]
    measures: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Any] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        """Read the measures in a file, if they are of the same source and data.

        A damaged file, or one of an older version, is moved aside with a warning and not deleted.
        """
        if not path.exists():
            return
        try:
            stored = read_results(path)
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
        """Write all measures, and the Fréchet distances into ``fid_path`` as well; return the content of ``path``.

        Args:
            training: the provenance of the checkpoint.
            others: further entries of the file.
        """
        provenance = {"training": training, "evaluation": self.origins, "data_sha256": self.data_sha256}
        results = {**self.source, **others, **nested(self.measures), "provenance": provenance}
        if "fid" in results:
            write_record(fid_path, {**results["fid"], **self.source, "provenance": provenance})
        write_record(path, results)
        return results


def read_results(path: Path) -> dict[str, Any]:
    """Read a file of results; numbers that an earlier version stored under another name have their present one.

    Raises:
        RunError: the file is missing or damaged.
    """
    results = read_record(path)
    for before, now in RENAMED.items():
        *parents, old = before.split("/")
        try:
            block = at(results, "/".join(parents))
        except (LookupError, TypeError):
            continue
        if isinstance(block, dict) and old in block:
            new = now.rpartition("/")[2]
            renamed = {new if name == old else name: value for name, value in block.items()}
            block.clear()
            block.update(renamed)
    return results


def at(results: Mapping[str, Any], name: str) -> Any:
    """Return the block with a name such as ``fid/pixels`` in results; LookupError if there is none."""
    for part in name.split("/"):
        results = results[part]
    return results


def nested(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return blocks as a nested dict: ``fid/pixels`` becomes ``pixels`` in ``fid``."""
    tree: dict[str, Any] = {}
    for name, block in measures.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = block
    return tree


def flat_scalars(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the final numbers by tag: ``test/...``, ``fid/<features>/...``, ``<the user's own measure>/...``."""
    return {
        f"{group_of(name)}/{tag}": value
        for name, block in blocks(results).items()
        for tag, value in numbers(block)
    }


def columns_in(results: Mapping[str, Any]) -> list[Column]:
    """Return the columns that describe a file's numbers, with whole tags."""
    return [column for name, block in blocks(results).items() for column in columns_of(name, block)]


def blocks(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the measures' blocks by name, such as ``fid/pixels``: fmvae's own, and those with ``columns``."""
    found: dict[str, Mapping[str, Any]] = {}
    depths = {name.partition("/")[0]: name.count("/") for name in BLOCKS}
    for name, node in results.items():
        if name in depths:
            found |= _at_depth(name, node, depths[name])
        elif isinstance(node, Mapping) and isinstance(node.get("columns"), list):
            found[name] = node
    return found


def _at_depth(name: str, node: Any, depth: int) -> dict[str, Mapping[str, Any]]:
    """Return the mappings that lie ``depth`` levels below a node, by their whole names."""
    if not isinstance(node, Mapping):
        return {}
    if not depth:
        return {name: node}
    return {
        key: block
        for part, child in node.items()
        for key, block in _at_depth(f"{name}/{part}", child, depth - 1).items()
    }
