"""Which numbers of runs compare, and why others do not."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fmvae.common.trees import flat
from fmvae.evaluation.columns import NATS, Column
from fmvae.report.collect import Run
from fmvae.report.settings import Setting, differing, in_scale

NO_MATCH = "Nats of different likelihoods or data.binarize do not compare"
DIFFER = "its runs differ in"
MAX_KEYS = 3  # in which runs differ, to name
MAX_LENGTH = 24  # of a value


def nats_compare(settings: Sequence[Setting]) -> bool:
    """Return whether nats per image compare: all settings have one likelihood, and one ``data.binarize``."""
    return not any(map(in_scale, differing([setting.first.config for setting in settings])))


def unlike(column: Column, settings: Sequence[Setting]) -> str:
    """Return why the settings' numbers of a column do not compare, as text; empty if they do."""
    if column.unit == NATS and not nats_compare(settings):
        return NO_MATCH[0].lower() + NO_MATCH[1:]
    texts = {with_what(run, column) for setting in settings for run in setting.runs if column.tag in run.scalars}
    if len(texts) < 2:
        return ""
    known = [flat(json.loads(one)) for one in sorted(texts)]
    keys = sorted({key for one in known for key in one if any(one.get(key) != other.get(key) for other in known)})
    told = [f"{key}{_values([one.get(key) for one in known])}" for key in keys]
    more = f" and {len(told) - MAX_KEYS} more" if len(told) > MAX_KEYS else ""
    return f"{DIFFER} {', '.join(told[:MAX_KEYS])}{more}"


def _values(values: Sequence[object]) -> str:
    """Return the different values in brackets; nothing if they are too long to be told apart."""
    whole = dict.fromkeys(json.dumps(value, ensure_ascii=False).strip('"') for value in values)
    brief = {text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…": None for text in whole}
    return f" ({' or '.join(brief)})" if len(brief) == len(whole) else ""


def with_what(run: Run, column: Column) -> str:
    """Return what a run's number was measured with, as JSON; ``{}`` if it is not known."""
    names = [name for name in run.measured if column.counted == name or column.counted.startswith(f"{name}/")]
    return run.measured[max(names, key=len)] if names else "{}"
