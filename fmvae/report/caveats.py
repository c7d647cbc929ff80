"""What a reader of a report should beware of, in sentences made by rules. No input or output."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from fmvae.evaluation.columns import Column
from fmvae.evaluation.frechet import MIN_RELIABLE
from fmvae.report.collect import Run
from fmvae.report.naming import Names, count, few
from fmvae.report.ranking import RATE, Ranking
from fmvae.report.settings import Setting

COLLAPSED = 0.1  # nats: a smaller KL says that the latents hold nothing
ACTIVE = "latent/active_units"
DISTANCE = "distance"  # the unit of Fréchet distances and the like
DIVERGED = re.compile(r"\bis (nan|-?inf)\b")
NOT_COMPLETE = {  # words for the states of runs
    "failed": "failed",
    "damaged": "damaged",
    "running": "still running",
    "new": "not begun yet",
    "pruned": "ended early by the search's pruner",
}


def caveats(
    runs: Sequence[Run], settings: Sequence[Setting], ranked: Sequence[Ranking], names: Names
) -> list[str]:
    """Return the warnings on these runs; ``settings`` are of the complete ones."""
    rules: list[Callable[[], list[str]]] = [
        lambda: _not_complete(runs),
        lambda: _not_compared(ranked),
        lambda: _one_seed(settings, names),
        lambda: _not_converged(settings),
        lambda: _collapsed(settings, names),
        lambda: _few_images(settings, ranked),
        lambda: _missing(settings, ranked, names),
    ]
    return [sentence for rule in rules for sentence in rule()]


def diverged(run: Run) -> bool:
    """Return whether a run ended because a loss, gradient or weight was not finite."""
    return run.state == "failed" and bool(DIVERGED.search(run.reason))


def _not_complete(runs: Sequence[Run]) -> list[str]:
    lost = [run for run in runs if diverged(run)]
    states = Counter(run.state for run in runs if run.state not in ("complete", "classifier"))
    states["failed"] -= len(lost)
    said = []
    if lost:
        told = few([f"{run.name}: {run.reason.partition(';')[0]}" for run in lost], 2)
        said.append(
            f"{count(len(lost), 'run')} diverged ({told}). Try a smaller optimizer.lr or trainer.max_grad_norm=10."
        )
    left = {NOT_COMPLETE.get(state, "not finished"): 0 for state in states}
    for state, number in states.items():
        left[NOT_COMPLETE.get(state, "not finished")] += number
    if told := [f"{count(number, 'run')} {word}" for word, number in sorted(left.items()) if number]:
        said.append(f"{few(told, len(told))}: in none of these numbers.")
    return said


def _not_compared(ranked: Sequence[Ranking]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for ranking in ranked:
        if ranking.refused:
            reasons.setdefault(ranking.refused, []).append(ranking.column.header)
    return [f"Not compared: {few(headers, len(headers))}; {reason}." for reason, headers in reasons.items()]


def _one_seed(settings: Sequence[Setting], names: Names) -> list[str]:
    one = [setting for setting in settings if len(setting.runs) == 1]
    if not one:
        return []
    if len(settings) == 1:
        who = "n = 1 seed"
    elif len(one) == len(settings):
        who = "n = 1 seed in every setting"
    else:
        who = f"n = 1 seed in {len(one):,} of {len(settings):,} settings ({names.some(one)})"
    return [f"{who}: how much seeds differ is not known, so a small difference may be chance."]


def at_last_epoch(run: Run) -> bool:
    """Return whether a run's best epoch is its last one, so that training has not converged."""
    return run.best_epoch is not None and run.best_epoch == run.config.get("trainer.epochs")


def _not_converged(settings: Sequence[Setting]) -> list[str]:
    runs = [run for setting in settings for run in setting.runs]
    late = sum(map(at_last_epoch, runs))
    if not late:
        return []
    who = "The run was" if len(runs) == 1 else f"{late:,} of {count(len(runs), 'run')} {_were(late)}"
    return [f"{who} best at the last epoch: not converged, so longer training would lower the loss further."]


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _collapsed(settings: Sequence[Setting], names: Names) -> list[str]:
    told = []
    for setting in settings:
        active, kl, z = setting.statistic(ACTIVE), setting.statistic(RATE), setting.first.latent_dim or 0
        if active and active.mean < z:
            told.append(f"{names.of(setting)}: {active.mean:g} of {z} active")
        elif kl and kl.mean < COLLAPSED:
            told.append(f"{names.of(setting)}: KL {kl.mean:.2f} nats")
    what = "Latent dimensions that hold nothing (collapsed)"
    return [f"{what}, in {len(told):,} of {count(len(settings), 'setting')}: {few(told)}."] if told else []


def _few_images(settings: Sequence[Setting], ranked: Sequence[Ranking]) -> list[str]:
    small: dict[int, list[str]] = {}
    for column in (ranking.column for ranking in ranked if ranking.column.unit == DISTANCE):
        if sizes := {size for size in _sizes(column, settings) if size < MIN_RELIABLE}:
            small.setdefault(min(sizes), []).append(column.header)
    return [
        f"{few(headers, len(headers))} {'is' if len(headers) == 1 else 'are'} of {size:,} images: below "
        f"{MIN_RELIABLE:,}, the bias of the estimate may exceed differences between models."
        for size, headers in small.items()
    ]


def _sizes(column: Column, settings: Sequence[Setting]) -> set[int]:
    runs = (run for setting in settings for run in setting.runs if column.tag in run.scalars)
    return {run.sizes[column.counted] for run in runs if column.counted in run.sizes}


def _missing(settings: Sequence[Setting], ranked: Sequence[Ranking], names: Names) -> list[str]:
    """Say which numbers some settings lack. Accuracies are of conditional models only, so those are no gap."""
    lacking: dict[tuple[int, ...], list[str]] = {}
    for tag, header in {one.column.tag: one.column.header for one in ranked}.items():
        has = [one.statistic(tag) is not None for one in settings]
        of_conditional = all(one.first.conditional for one, found in zip(settings, has, strict=True) if found)
        without = [
            i for i, one in enumerate(settings) if not has[i] and (one.first.conditional or not of_conditional)
        ]
        if without:
            lacking.setdefault(tuple(without), []).append(header)
    return [
        f"{few(headers, len(headers))} {_were(len(headers))} not measured for {len(which):,} of {len(settings):,} "
        f"settings ({names.some([settings[i] for i in which])})."
        for which, headers in lacking.items()
    ]
