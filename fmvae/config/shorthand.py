"""What people write shorter than Hydra reads it: ``beta=0.5,1,4`` for ``beta.value=0.5,1,4``; and quotes."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|nan)"
ITEM = rf"\s*(?:(?:start|stop|step)=)?{NUMBER}\s*"
SHORTHAND = re.compile(
    rf"(beta|latent_dim)=({NUMBER}(?:\s*,\s*{NUMBER})*|(?:range|choice|interval)\({ITEM}(?:,{ITEM})*\))",
    re.IGNORECASE,
)


def expand_shorthand(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with all-number values of ``beta`` and ``latent_dim`` given to their ``value``.

    Hydra takes a number for the name of a group's option and refuses it.
    """
    return [SHORTHAND.sub(r"\1.value=\2", a) if SHORTHAND.fullmatch(a) else a for a in arguments]


def in_quotes(value: str) -> str:
    """A value as Hydra reads it for a text, whatever is in it."""
    mark = '"' if "'" in value and '"' not in value else "'"
    end = re.compile(rf"(\\*)({mark}|$)")
    return f"{mark}{end.sub(_escaped, value)}{mark}"


def _escaped(found: re.Match[str]) -> str:
    """Backslashes count only before a quote, where they are doubled, and a quote has one of its own."""
    slashes, end = found.groups()
    return slashes * 2 + (f"\\{end}" if end else "")
