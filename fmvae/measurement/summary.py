"""Format a run's results as a small table for the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from fmvae.evaluation.columns import BLOCKS, FEATURES, NEG_ELBO, SAMPLERS, Column, built_in_columns, columns_of
from fmvae.runs.directory import RunDirectory
from fmvae.runs.results import columns_in, flat_scalars
from fmvae.weights import weights_name


def describe(run: RunDirectory, results: Mapping[str, Any]) -> str:
    """Format a run's results as a small table for the terminal, with the paths of its files.

    Behind a number of other images than the heading above it says is how many.
    """
    test, checkpoint, num = results["test"], results["checkpoint"], results["test"]["num_images"]
    # other parts of the objective
    parts = [column for column in columns_of("test", test) if not _listed(column)]
    rows = [
        ("objective", test["objective"], test.get("objective_at_mean"), ""),
        ("recon", test["recon"], test["recon_at_mean"], ""),
        ("KL", test["kl"], None, ""),
        (NEG_ELBO, test["neg_elbo"], None, ""),
    ]
    if iwae := results.get("iwae"):
        others = _unless(num, iwae)
        bounds = [name for name in iwae if name.startswith("iwae_")]
        rows += [(name.upper().replace("_", " "), iwae[name], None, others) for name in bounds]
    lines = [
        "",
        f"{run.path.name}: {checkpoint['which']} checkpoint, epoch {checkpoint['epoch']}",
        "",
        f"  test, {num:,} images    z sampled   z at the mean   (nats per image)",
    ]
    for name, sampled, mean, others in rows:
        at_mean = f"{mean:>16.2f}" if mean is not None else ""
        lines.append(f"  {name:<22}{sampled:>12.2f}{at_mean}{others}".rstrip())
    for column in parts:
        value = f" {test[column.tag.partition('/')[2]]:.{column.digits}f}"
        lines.append(f"  {column.header}{value:>{max(34 - len(column.header), 0)}}")
    lines += [*_fid(results.get("fid", {})), *_latent(results.get("latent"))]
    lines += [
        *_decomposition(results.get("decomposition")),
        *_disentanglement(results.get("disentanglement")),
        *_accuracy(results.get("accuracy")),
        *_samplers(results.get("samplers", {}), num),
        *_others(results),
    ]
    which = checkpoint["which"]
    suffix, folder = ("", "") if which == "best" else (f".{which}", f"{which}/")
    lines += [
        "",
        f"  results      {run}/results{suffix}.json",
        *([f"  figures      {run}/figures/{folder}"] if any((run.figures / folder).glob("*.png")) else []),
        f"  TensorBoard  {_tensorboard()} --logdir {quote(str(RunDirectory(run.path.parent)))}",
        "",
    ]
    return "\n".join(lines)


def _unless(num: int | None, block: Mapping[str, Any]) -> str:
    """Return how many images a block's numbers are of, if these are not ``num``, and known."""
    own = block.get("num_images")
    return f"  ({own:,} images)" if own is not None and own != num else ""


def _most(blocks: Iterable[Mapping[str, Any]]) -> int | None:
    """Return the largest number of images of any block; None if no block says it."""
    return max((block["num_images"] for block in blocks if "num_images" in block), default=None)


def _fid(blocks: Mapping[str, Any]) -> list[str]:
    if not blocks:
        return []
    lines = ["", "  FID                            generation      reconstruction   floor   precision  recall"]
    for features, block in blocks.items():
        extractor = block["settings"].get("extractor_sha256")
        of = f" ({weights_name(extractor)})" if extractor else ""
        title = f"{features}{of}, {block['num_images']:,}"
        generation = number(block, "generation") + f" ± {number(block, 'generation_se')}"
        lines.append(
            f"  {title:<26}{generation:>15}{number(block, 'reconstruction'):>20}{number(block, 'floor'):>8}"
            f"{number(block, 'precision'):>12}{number(block, 'recall'):>8}"
        )
    return lines


def number(block: Mapping[str, Any], name: str) -> str:
    """Format a value; a dash if it is missing, as in results of an older version."""
    return f"{block[name]:.3f}" if block.get(name) is not None else "–"


def _latent(block: Mapping[str, Any] | None) -> list[str]:
    if not block:
        return []
    line = f"  {block['active_units']} of {len(block['mu_variance'])} latent dimensions active"
    if (probe := block.get("linear_probe_accuracy")) is not None:  # data without labels have none
        line += f"; a linear probe on mu classifies {100 * probe:.1f} % of the test images correctly"
    return ["", line]


def _decomposition(block: Mapping[str, Any] | None) -> list[str]:
    if not block:
        return []
    parts = {"MI": "mi", "TC": "tc", "dimension-wise": "dimension_wise"}
    told = ", ".join(f"{said} {block[name]:.2f} ± {block[f'{name}_se']:.2f}" for said, name in parts.items())
    return [f"  parts of the training images' KL: {told} nats per image"]


def _disentanglement(block: Mapping[str, Any] | None) -> list[str]:
    """Format the scores that tables show, beside those of shuffled factors and of an untrained encoder."""
    if not block:
        return []
    levels = {"shuffled factors": "chance", "untrained encoder": "untrained"}
    there = {said: block[name] for said, name in levels.items() if name in block}
    head = "".join(f"{said:>20}" for said in there)
    title = "disentanglement" + (f", {block['num_images']:,} images" if "num_images" in block else "")
    lines = ["", f"  {title}{'score':>{38 - len(title)}}{head}"]
    for column in BLOCKS["disentanglement"]:
        if column.direction and column.tag.rpartition("/")[2] in block:
            name = column.tag.rpartition("/")[2]
            beside = "".join(f"{part[name]:>20.3f}" if name in part else " " * 20 for part in there.values())
            lines.append(f"  {column.header:<26}{block[name]:>12.3f}{beside}".rstrip())
    return lines


def _accuracy(block: Mapping[str, Any] | None) -> list[str]:
    if not block:
        return []
    made, real, judge = block["generated"], block["real"], weights_name(block["settings"]["extractor_sha256"])
    shares = {name: share for name, share in made["per_class"].items() if share is not None}
    worst = min(shares, key=lambda name: shares[name])
    return [
        "",
        f"  The classifier `{judge}` recognises the requested class in {100 * made['overall']:.2f} % of "
        f"{made['num_images']:,} generated images",
        f"  (worst: {worst}, {100 * shares[worst]:.1f} %) and the true class in {100 * real['overall']:.2f} % "
        "of real test images",
    ]


def _samplers(blocks: Mapping[str, Mapping[str, Any]], num_test: int) -> list[str]:
    """Format the samplers: a row for each set of features, and a line for bounds and for accuracies."""
    blocks = {name: blocks[name] for name in SAMPLERS if name in blocks}
    features = [name for name in FEATURES if any(name in parts for parts in blocks.values())]
    most = _most(parts[name] for parts in blocks.values() for name in features if name in parts)
    lines = []
    if features:
        title = "samples drawn from" + (f", {most:,} images" if most else "")
        head = f"{'FID':<8}{'precision':>11}{'recall':>8}{'coverage':>10}{'nearest train/test':>20}"
        lines = ["", f"  {title:<36}{head}"]
    for name in features:
        for sampler, parts in blocks.items():
            if not (block := parts.get(name)):
                continue
            title = f"{name}: {sampler_name(sampler, block)}"
            distance = f"{number(block, 'generation')} ± {number(block, 'generation_se')}".rjust(44 - len(title))
            names = ("precision", "recall", "coverage", "nearest_ratio")
            precision, recall, coverage, ratio = (number(block, of) for of in names)
            shown = f"{title}{distance}{precision:>11}{recall:>8}{coverage:>10}{ratio:>20}"
            lines.append(f"  {shown}{_unless(most, block)}")
    for sampler, parts in blocks.items():
        for bound, value in parts.get("bound", {}).items():
            if bound.startswith("iwae_"):
                density = sampler_name(sampler, parts["bound"])
                title = f"{bound.upper().replace('_', ' ')} of another model, with ({density}) as its prior"
                others = _unless(num_test, parts["bound"])
                lines.append(f"  {title}: {value:.2f} nats per image{others}")
    judged = {name: parts["accuracy"]["generated"] for name, parts in blocks.items() if "accuracy" in parts}
    if judged:
        num = _most(judged.values())
        shares = (f"{name} {100 * made['overall']:.2f} %{_unless(num, made)}" for name, made in judged.items())
        told = ", ".join(shares)
        lines.append(f"  images of the requested class, by sampler: {told}")
    return lines if not lines or features else ["", *lines]


def sampler_name(sampler: str, block: Mapping[str, Any]) -> str:
    """Return a sampler's name with what its fit has chosen, as ``gmm, 100``, or ``gmm, 100, T = 0.8``."""
    fitted = block.get("fitted", {})
    forms = {"num_components": "{}", "temperature": "T = {:g}"}
    return ", ".join([sampler, *(form.format(fitted[key]) for key, form in forms.items() if key in fitted)])


def _listed(column: Column) -> bool:
    return any(known.matches(column.tag) for known in built_in_columns())


def _others(results: Mapping[str, Any]) -> list[str]:
    """Format one line for each column of the user's own measures."""
    numbers, columns = flat_scalars(results), [column for column in columns_in(results) if not _listed(column)]
    lines = [
        f"  {column.tag.partition('/')[0] + ': ' + column.header:<22}"
        f"{numbers[column.tag]:>12.{column.digits}{'%' if column.share else 'f'}}"
        f" {column.unit * (not column.share)}".rstrip()
        + _unless(results["test"]["num_images"], results[column.tag.partition("/")[0]])
        for column in columns
        if not column.tag.startswith("test/")
    ]
    return ["", *lines] if lines else []


def _tensorboard() -> str:
    """Return the TensorBoard command that works here, also if the environment is not activated."""
    beside_python = Path(sys.executable).with_name("tensorboard")
    on_path = shutil.which("tensorboard")
    if on_path and Path(on_path) == beside_python:
        return "tensorboard"
    return str(RunDirectory(beside_python)) if beside_python.exists() else "tensorboard"
