"""Class names as people see them. A dataset may give any text: long, empty, or without a glyph in the font."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from fmvae.common.text import JOINERS, one_line

LONGEST = 24  # characters that are shown of a name


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names to show in a page or a table: one short line each, all different.

    Names of up to 24 printable characters stay as they are. White space becomes single spaces, control characters
    become "?", invisible ones (such as those that turn the direction of text) are left out. A longer name ends in
    "…"; an empty one is its index. Names that have become equal get their index, as ``name (3)``.
    """
    return _different([one_line(name) for name in names])


def drawable(names: Sequence[str], *, escaped: bool = True) -> tuple[str, ...]:
    """Return class names to draw with matplotlib, given its current font: as :func:`readable`, in its glyphs.

    "?" is shown for a character that the font lacks; a name without any other is its index.

    Args:
        escaped: write "$" as matplotlib has it, to which two of them would be a formula.
    """
    from matplotlib import rcParams

    fonts = tuple(name for kind in ("font.family", "font.sans-serif", "font.serif") for name in rcParams[kind])
    return _drawn(tuple(names), escaped, fonts)


@lru_cache(maxsize=16)  # figures ask for all names at each of a thousand classes
def _drawn(names: tuple[str, ...], escaped: bool, fonts: tuple[str, ...]) -> tuple[str, ...]:
    """Return names for ``drawable``; ``fonts`` are the current ones, on which the glyphs depend."""
    has_glyph = _glyphs_of_font() if any(not name.isascii() for name in names) else str.isascii
    ellipsis = "…" if has_glyph("…") else "..."
    shown = _different([_in_glyphs(one_line(name), has_glyph) for name in names], ellipsis)
    return tuple(name.replace("$", r"\$") if escaped else name for name in shown)


def _in_glyphs(name: str, has_glyph: Callable[[str], bool]) -> str:
    """Return a name with "?" for characters without a glyph; empty if no character has one."""
    marks = ("Mn", "Me", "Cf")  # change the character before them, and are no character to miss
    kept = [one if has_glyph(one) else "" if unicodedata.category(one) in marks else "?" for one in name]
    drawn = "".join(kept)
    return "" if drawn != name and not drawn.strip("? ") else drawn


def _glyphs_of_font() -> Callable[[str], bool]:
    """Return whether matplotlib's current fonts have a glyph for a character."""
    from matplotlib import font_manager

    families = font_manager.FontProperties().get_family()
    fonts = [
        font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[family])))
        for family in families
    ]
    return lambda character: any(font.get_char_index(ord(character)) for font in fonts)


def _different(names: Sequence[str], ellipsis: str = "…") -> tuple[str, ...]:
    shown = [_short(name, ellipsis) or str(index) for index, name in enumerate(names)]
    number = Counter(shown)
    told = [
        one if number[one] == 1 else f"{_short(one, ellipsis, LONGEST - len(suffix))}{suffix}"
        for one, suffix in zip(shown, (f" ({index})" for index in range(len(shown))), strict=True)
    ]
    if len(set(told)) < len(told):  # one was called "name (3)" before
        told = [
            f"{prefix}{_short(one, ellipsis, LONGEST - len(prefix))}"
            for one, prefix in zip(shown, (f"{index}: " for index in range(len(shown))), strict=True)
        ]
    return tuple(told)


def _short(name: str, ellipsis: str, longest: int = LONGEST) -> str:
    if len(name) <= longest:
        return name
    return name[: longest - len(ellipsis)].rstrip(" " + JOINERS + ellipsis) + ellipsis
