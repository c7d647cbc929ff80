"""Expand the shorthand ``beta=0.5,1,4`` to ``beta.value=0.5,1,4``, and quote values for Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|nan)"
ITEM = rf"\s*(?:(?:start|stop|step)=)?{NUMBER}\s*"
FUNCTION = rf"(?:range|choice|interval|shuffle|sort)\({ITEM}(?:,{ITEM})*\)"
OUTER = r"(?:tag\(\s*\w+\s*,|(?:int|float|shuffle|sort)\()\s*"  # Hydra checks that as many are closed
SHORTHAND = re.compile(
    rf"(beta|latent_dim)=({NUMBER}(?:\s*,\s*{NUMBER})*|(?:{OUTER})*{FUNCTION}(?:\s*\))*)",
    re.IGNORECASE,
)


def expand_shorthand(arguments: Sequence[str]) -> list[str]:
    """Return the arguments, with ``beta=4`` rewritten to ``beta.value=4``; ``latent_dim`` alike.

    An argument is rewritten if all its values are numbers. Both keys are groups, so Hydra would look for an option
    named ``4``.
    """
    return [SHORTHAND.sub(r"\1.value=\2", a) if SHORTHAND.fullmatch(a) else a for a in arguments]


def shortened(override: str) -> str:
    """Return ``beta.value=4`` as ``beta=4``, the opposite of :func:`expand_shorthand`; others as they are."""
    shorter = override.replace(".value=", "=", 1)
    return shorter if expand_shorthand([shorter]) == [override] else override


def in_quotes(value: str) -> str:
    """Return a value in quotes, so that Hydra reads it as a text, whatever characters it has."""
    mark = '"' if "'" in value and '"' not in value else "'"
    end = re.compile(rf"(\\*)({mark}|$)")
    return f"{mark}{end.sub(_escaped, value)}{mark}"


def _escaped(found: re.Match[str]) -> str:
    """Double the backslashes before a quote or the end, and escape the quote. Hydra needs no others escaped."""
    slashes, end = found.groups()
    return slashes * 2 + (f"\\{end}" if end else "")
