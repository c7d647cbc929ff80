"""The fitted samplers of a run: where they are kept, and how figures and Python draw from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

from fmvae.assembly import Parts
from fmvae.errors import HeldError, LockError
from fmvae.evaluation.measure import Context
from fmvae.evaluation.samplers import Sampler, SamplerStore, fit_settings
from fmvae.evaluation.samplers.store import READ_ONLY
from fmvae.runs.directory import RunDirectory
from fmvae.visualization import Source

Which = Literal["best", "last"]
log = logging.getLogger("fmvae")


def sampler_store(
    run: RunDirectory,
    which: Which,
    parts: Parts,
    config: Mapping[str, Any],
    checkpoint_sha256: str,
    may_write: Callable[[], AbstractContextManager[bool]] | None = None,
    *,
    anew: bool = False,
) -> SamplerStore:
    """Return the store of the samplers fitted to a run's checkpoint, whose weights are in ``parts``.

    Args:
        may_write, anew: as for ``SamplerStore``; by default the caller holds the run's lock.
    """
    folder = run.samplers if which == "best" else run.samplers / which
    return SamplerStore(
        folder,
        parts.model,
        parts.data,
        seed=config["seed"],
        checkpoint_sha256=checkpoint_sha256,
        anew=anew,
        may_write=may_write,
    )


@contextmanager
def held_if_free(run: RunDirectory) -> Iterator[bool]:
    """Hold the run's lock inside, and yield True; yield False if it is taken or cannot be had here.

    A log line tells the latter.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(run.held())
            free = True
        except (HeldError, LockError) as error:
            log.info("%s: %s; the fit is kept in memory only", run, error.problem)
            free = False
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            log.info("%s: %s; the fit is kept in memory only", run, error.strerror)
            free = False
        yield free


def sources(
    context: Context, evaluation: Mapping[str, Any], samplers: Iterable[str]
) -> dict[str, Callable[[], Source]]:
    """Return by sampler a function that gives what figures draw from; it is fitted at the first call."""

    def source(name: str) -> Source:
        sampler = context.samplers.get(name, fit_settings(evaluation, name))
        return Source(in_words(sampler), sampler.sample)

    return {name: partial(source, name) for name in samplers}


def in_words(sampler: Sampler) -> str:
    """Return what a fitted sampler draws from, for titles."""
    of_class = " of each class" * bool(sampler.num_classes)
    words = {
        "prior": "the prior",
        "flow": f"a flow fitted to q(z){of_class}",
        "two_stage": f"a second VAE fitted to q(z){of_class}",
        "aggregate": f"q(z){of_class}, the training images' posteriors",
    }
    if sampler.name in words:
        return words[sampler.name]
    told = sampler.told()
    num, temperature = told["num_components"], told.get("temperature")
    mixture = "a Gaussian" if num == 1 else f"a mixture of {num} Gaussians"
    at_temperature = "" if temperature is None else f", at temperature {temperature:g}"
    return f"{mixture} fitted to q(z){of_class}{at_temperature}"


def settings_of(results: Mapping[str, Any], evaluation: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the settings of a sampler in a run's results; if it was not measured, those of ``evaluation``."""
    blocks = results.get("samplers", {}).get(name, {})
    for block in blocks.values():
        return block["settings"]["fit"]
    return fit_settings(evaluation, name)
