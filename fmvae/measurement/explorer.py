"""The explorer of a run that has just been measured, and the numbers that explorers tell of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fmvae.assembly import Parts
from fmvae.errors import RunError
from fmvae.explore.content import Subject
from fmvae.explore.page import write_explorer
from fmvae.measurement.sampling import Which
from fmvae.models.posterior import Posteriors
from fmvae.runs.directory import RunDirectory
from fmvae.visualization import Source, VAEVisualizer


def facts_of(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of a run's main numbers, from its results."""
    test = results["test"]
    named = {"neg_elbo": "−ELBO", "recon": "reconstruction", "kl": "KL"}
    facts = [(said, f"{test[name]:.2f} nats") for name, said in named.items() if name in test]
    if latent := results.get("latent"):
        facts.append(("active dimensions", f"{latent['active_units']} of {len(latent['mu_variance'])}"))
    return facts


def write_run_explorer(
    run: RunDirectory,
    which: Which,
    parts: Parts,
    visualizer: VAEVisualizer,
    results: Mapping[str, Any],
    posteriors: Posteriors,
    sources: Mapping[str, Callable[[], Source]],
) -> str | None:
    """Write the explorer of a run's checkpoint into its directory; return why not, if its decoder is refused.

    Args:
        visualizer: with the epoch in its titles.
        posteriors: of the test split.
        sources: by sampler, fitted at the first call.
    """
    path = run.path / ("explorer.html" if which == "best" else f"explorer.{which}.html")
    subject = Subject(run.path.name, visualizer, parts.data, "", facts_of(results), sources, posteriors)
    try:
        write_explorer(path, [subject])
    except RunError as error:
        return error.problem
    return None
