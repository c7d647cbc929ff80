"""The explorer of a run that has just been measured, and the numbers that explorers tell of runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fmvae.assembly import Parts
from fmvae.errors import RunError
from fmvae.evaluation.columns import NEG_ELBO
from fmvae.explore import NAME
from fmvae.measurement.sampling import Which
from fmvae.runs.directory import RunDirectory
from fmvae.visualization import Source, VAEVisualizer

log = logging.getLogger("fmvae")


def facts_of(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of a run's main numbers, from its results."""
    test = results["test"]
    named = {"neg_elbo": NEG_ELBO, "recon": "reconstruction", "kl": "KL"}
    facts = [(said, f"{test[name]:.2f} nats") for name, said in named.items() if name in test]
    if latent := results.get("latent"):
        facts.append(("active dimensions", f"{latent['active_units']} of {len(latent['mu_variance'])}"))
    return facts


def explorer_of(run: RunDirectory, which: Which) -> Path:
    """Return the file of a checkpoint's explorer."""
    return run.path / (NAME if which == "best" else f"explorer.{which}.html")


def explore_run(
    page: Path,
    parts: Parts,
    visualizer: VAEVisualizer,
    results: Mapping[str, Any],
    sources: Mapping[str, Callable[[], Source]],
) -> None:
    """Write the explorer of a measured run. If its decoder cannot run in a page, a line says so.

    Args:
        visualizer: with the epoch in its titles.
        sources: by sampler, fitted at the first call.
    """
    from fmvae.explore.content import Subject  # with torch's tracer, which other runs need not load
    from fmvae.explore.page import write_explorer

    subject = Subject(page.parent.name, visualizer, parts.data, "", facts_of(results), sources)
    try:
        write_explorer(page, [subject])
    except RunError as error:  # the run has its numbers, and is complete
        log.warning("no explorer: %s", error)
