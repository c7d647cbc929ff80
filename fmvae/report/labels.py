"""What tells runs apart, in words, for pages that show them side by side."""

from __future__ import annotations

from collections.abc import Sequence

from fmvae.report.collect import Run
from fmvae.report.settings import BETA, particulars, shown, telling


def labels_of(runs: Sequence[Run]) -> list[str]:
    """Return for each run what differs between them, such as ``conv, z = 2, β = 0.5, lr 0.01, seed 1``.

    A run alone, and runs that do not differ, have their names.
    """
    told = telling(runs)

    def several(key: str) -> bool:
        return len({shown(key, run) for run in runs}) > 1

    def label(run: Run) -> str:
        parts = [
            run.model if len({run.model for run in runs}) > 1 else "",
            f"z = {run.latent_dim}" if len({run.latent_dim for run in runs}) > 1 else "",
            run.schedule if len({run.schedule for run in runs}) > 1 else "",
            f"β = {shown(BETA, run)}" if several(BETA) else "",
            particulars(run, told),
            f"seed {shown('seed', run)}" if several("seed") else "",
        ]
        return ", ".join(filter(None, parts))

    found = [label(run) for run in runs]
    return [
        words if words and found.count(words) == 1 else run.name for words, run in zip(found, runs, strict=True)
    ]
