"""Short names of settings for sentences and tooltips: what tells them apart, and nothing that all have."""

from __future__ import annotations

from collections.abc import Sequence

from fmvae.report.settings import Setting, particulars, telling

MAX_NAMED = 3  # settings that a sentence names; of more it gives the number


class Names:
    """Names such as ``conv, tc, z = 10, β = 4``. A single setting is named by its model, z and β."""

    def __init__(self, settings: Sequence[Setting]):
        firsts = [setting.first for setting in settings]
        alone = len(firsts) == 1
        self.told = telling(firsts)
        self.models = alone or len({run.model for run in firsts}) > 1
        self.dims = alone or len({run.latent_dim for run in firsts}) > 1
        self.schedules = len({run.schedule for run in firsts}) > 1
        self.betas = len({run.beta for run in firsts}) > 1

    def of(self, setting: Setting) -> str:
        """Return a setting's name."""
        run = setting.first
        own = particulars(run, self.told)
        parts = [run.model if self.models else "", own]
        parts += [f"z = {run.latent_dim}" if self.dims else ""]
        parts += [run.schedule if self.schedules else ""]
        if self.betas or not any(parts) or (self.models and self.dims and not own):
            parts.append("β = ?" if run.beta is None else f"β = {run.beta:g}")
        return ", ".join(filter(None, parts))

    def some(self, settings: Sequence[Setting], most: int = MAX_NAMED) -> str:
        """Return the names of at most ``most`` settings as part of a sentence, and the number of the others."""
        return few([self.of(setting) for setting in settings], most)


def few(texts: Sequence[str], most: int = MAX_NAMED) -> str:
    """Return ``a, b and c``, or ``a, b and 7 more`` if there are more than ``most``.

    If a text has a comma in it, semicolons stand between the texts.
    """
    if len(texts) > most:
        texts = [*texts[: most - 1], f"{len(texts) - most + 1:,} more"]
    mark = "; " if any(", " in one for one in texts) else ", "
    return " and ".join(filter(None, [mark.join(texts[:-1]), *texts[-1:]]))


def count(number: int, noun: str) -> str:
    """Return ``1 run`` or ``2 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
