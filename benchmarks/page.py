"""Write docs/performance.md from the results in benchmarks/results; keep what other machines and benchmarks gave.

python -m benchmarks.page
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.results_folder import RESULTS
from fmvae.config.project import PROJECT_ROOT
from fmvae.runs.files import write_bytes

PAGE = PROJECT_ROOT / "docs" / "performance.md"
HEAD = """# How fast it is

Written by `python -m benchmarks.page` from what `make bench` measured. Numbers in bold are ratios of two sides
that took turns in one run on one machine, the median over rounds; seconds (s) are medians too, and of that machine
only. `a / b` is the time of a divided by that of b. Machines of other instruction sets have parts of their own.

- **limit**: the model's own matrix products and convolutions, both ways, and the optimizer's step alone, as torch
  computes them;
- **roofline**: an estimate from the machine's speeds, in float32 or in bfloat16: the floating-point operations at
  the highest rate of a large product, plus the bytes of all layers and of the optimizer at the bandwidth of a
  copy. Small products run far below that rate, whoever computes them;
- **usual**: torchvision's dataset with `ToTensor` through a `DataLoader`, with its best number of workers, and a
  plain loop over the same model, of torch's own layers, with the default Adam; for `beta` with `Normalize`, as the
  study that the model is from has it. It has torch's default allocator and threads;
- **in memory**: the same loop on batches taken from a float tensor;
- **pythae**: its VAE trainer on the same widths, if it is installed;
- **by hand**: the baseline's step written for it alone, without autograd, modules or an optimizer object.
"""
TITLES = {
    "training": "Training, an epoch",
    "by_hand": "The baseline's epoch, written by hand for it alone",
    "gpu": "On a GPU",
    "exact": "The same bytes on a GPU: run twice, and resumed",
    "study": "A study on a GPU",
    "startup": "From the command to the first step",
    "memory": "Page faults and memory",
    "contention": "Beside other trainings on the same cores",
    "precision": "Training in bfloat16",
    "tricks": "What is done for speed, and without it",
    "overheads": "Logs, checkpoints and TensorBoard",
    "convolutions": "Convolutions as matrix products",
    "label_maps": "Label maps, looked up",
    "evaluation": "Measures and figures of a run",
    "decomposition": "MI, TC and dimension-wise KL",
    "mixtures": "Mixtures of Gaussians, and the residual model",
    "disentanglement": "Scores of disentanglement",
    "features": "Features of FashionResNet18",
    "features_gpu": "Features of FashionResNet18 on a GPU",
    "launchers": "A sweep by each launcher",
    "stacked": "Stacked runs",
    "stacked_gpu": "Stacked runs on a GPU",
}


def sections(before: str) -> Iterator[str]:
    """The page's sections: a part for each type of machine, of what was measured here or is on an earlier page."""
    earlier = dict(section.split("\n", 1) for section in before.split("\n## ")[1:])
    for name, title in TITLES.items():
        parts = dict(part.split("\n", 1) for part in ("\n" + earlier.get(title, "")).split("\n### ")[1:])
        path = RESULTS / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_bytes())
            parts[result["machine"]] = table(name, result)
        if parts:
            told = "\n".join(f"### {kind}\n\n{parts[kind].strip()}\n" for kind in sorted(parts))
            yield f"## {title}\n\n{told}"


MAX_COLUMNS = 9  # what fits GitHub's width


def table(name: str, result: Mapping[str, Any]) -> str:
    """What a benchmark left, as tables of one number a cell, and the machine that it ran on."""
    told = f"\n`python -m benchmarks.{name.removesuffix('_gpu')}`, {described(result['provenance'])}\n"
    return "\n".join([told, *(tables(cases) for cases in alike(result["cases"]))])


def alike(cases: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """Cases in groups: neighbours that have a side in common share tables."""
    groups: list[dict[str, Mapping[str, Any]]] = []
    for case, found in cases.items():
        if not groups or not any(set(found["times"]) & set(one["times"]) for one in groups[-1].values()):
            groups.append({})
        groups[-1][case] = found
    return groups


def tables(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of a group: one if all columns fit, else one for each kind of number, in parts if too wide."""
    kinds = [
        columns
        for kind in (seconds, ratios, peaks, counts, checks)
        if (columns := {column: None for found in cases.values() for column in kind(found)})
    ]
    numbers = {
        case: {**seconds(found), **ratios(found), **peaks(found), **counts(found), **checks(found)}
        for case, found in cases.items()
    }
    room = MAX_COLUMNS - 1
    blocks = [[column for kind in kinds for column in kind]]
    if len(blocks[0]) > room:
        blocks = [list(kind)[i : i + room] for kind in kinds for i in range(0, len(kind), room)]
    return "\n".join(_table(block, numbers) for block in blocks)


def _table(columns: Sequence[str], numbers: Mapping[str, Mapping[str, str]]) -> str:
    lines = [f"| case | {' | '.join(columns)} |", f"| --- | {'---: | ' * len(columns)}".rstrip()]
    for case, own in numbers.items():
        lines.append(f"| {case} | {' | '.join(own.get(column, '') for column in columns)} |")
    return "\n".join(lines) + "\n"


def seconds(found: Mapping[str, Any]) -> dict[str, str]:
    return {f"{side}, s": f"{statistics.median(times):.3g}" for side, times in found["times"].items()}


def ratios(found: Mapping[str, Any]) -> dict[str, str]:
    return {pair: f"**{value:.2f}**" for pair, value in found["ratios"].items()}


def peaks(found: Mapping[str, Any]) -> dict[str, str]:
    """The peak memory of each side; on a CPU it is not measured."""
    sizes = found.get("peaks", {})
    return {f"{side}, MiB on the GPU": f"{size / 2**20:.0f}" for side, size in sizes.items() if size}


def counts(found: Mapping[str, Any]) -> dict[str, str]:
    return {what: f"{number:,.0f}" for what, number in found.get("counts", {}).items()}


def checks(found: Mapping[str, Any]) -> dict[str, str]:
    return {side: outcome.replace("|", "/") for side, outcome in found.get("checks", {}).items()}


def described(where: dict[str, Any]) -> str:
    """Describe the machine and the commit of a result."""
    parts = [where.get("processor") or where.get("device"), f"torch {where['versions']['torch']}"]
    parts += [f"{where['threads']} thread{'s' * (where['threads'] > 1)}"] if where.get("threads") else []
    return ", ".join(map(str, [*parts, f"commit {str(where['git']['commit'])[:8]}"]))


def main() -> None:
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    write_bytes(PAGE, (HEAD + "\n" + "\n".join(sections(before))).encode())
    print(PAGE)


if __name__ == "__main__":
    main()
