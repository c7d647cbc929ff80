"""How figures look for a paper: formats, font and width, from the config group ``figures``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from fmvae.common.phases import phase
from fmvae.errors import ConfigError

T = TypeVar("T")
POINTS = 10.0  # matplotlib's size of text, which sizes in the code refer to


@dataclass(frozen=True)
class Appearance:
    """The settings of figures that change how they look, and nothing of what they show.

    Attributes:
        formats: of the files, among ``png``, ``pdf`` and ``svg``.
        font: name of an installed font; None is matplotlib's own, DejaVu Sans.
        font_size: of usual text, in points; titles and small text keep their proportions.
        width: of every figure, in inches; None leaves each its own.
        dpi: pixels per inch of a PNG.
    """

    formats: tuple[str, ...] = ("png",)
    font: str | None = None
    font_size: float | None = None
    width: float | None = None
    dpi: int = 110

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Appearance:
        """Return the appearance in ``figures``. Keys that an earlier version did not have may be missing.

        Raises:
            ConfigError: the font is not installed.
        """
        formats = settings.get("format", cls.formats)
        made = cls(
            formats=(formats,) if isinstance(formats, str) else tuple(dict.fromkeys(formats)),
            font=settings.get("font"),
            font_size=settings.get("font_size"),
            width=settings.get("width"),
            dpi=settings.get("dpi", cls.dpi),
        )
        if made.font:
            _check_font(made.font)
        return made


_current: ContextVar[Appearance] = ContextVar("how figures look", default=Appearance())  # noqa: B039 (frozen)


def _check_font(name: str) -> None:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    if name not in installed:
        import difflib

        close = difflib.get_close_matches(name, sorted(installed), 3, 0.5) or ["DejaVu Sans", "DejaVu Serif"]
        way_out = f"choose an installed one, as {', '.join(close)}"
        raise ConfigError("figures.font", f"{name!r} is not installed for matplotlib", way_out)


@contextmanager
def appearing(look: Appearance) -> Iterator[None]:
    """Draw and save figures with this appearance inside."""
    token = _current.set(look)
    try:
        settings = rc(look)
        if not settings:  # matplotlib takes half a second to import, which training need not wait for
            yield
            return
        import matplotlib

        logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells each table of a font in a PDF
        with matplotlib.rc_context(settings):
            yield
    finally:
        _current.reset(token)


def rc(look: Appearance) -> dict[Any, Any]:
    """Return matplotlib's settings for an appearance; none for the default one."""
    settings: dict[Any, Any] = {}
    if look.font:
        # the second one has the signs that the first may lack, such as β
        settings["font.family"] = [look.font, "DejaVu Sans"]
    if look.font_size:
        settings["font.size"] = look.font_size
    if "pdf" in look.formats:
        settings["pdf.fonttype"] = 42  # TrueType: journals refuse Type 3, and its text can't be edited
    if "svg" in look.formats:
        settings["svg.hashsalt"] = "fmvae"  # otherwise the ids in a file are random
    return settings


def size(width: float, height: float, least: float = 2.4) -> tuple[float, float]:
    """Return a figure's size in inches: its own one, or in proportion to the width that the user has chosen.

    Args:
        least: the smallest height of a figure that was made narrower, as text keeps its size.
    """
    chosen = _current.get().width
    if chosen is None:
        return width, height
    return chosen, max(height * chosen / width, min(height, least))


def own_width(width: float) -> float:
    """Return the width in inches of a figure that would have this one by itself."""
    return size(width, width)[0]


def text_size(usual: float) -> float:
    """Return a size of text, given the one for text of 10 points."""
    chosen = _current.get().font_size
    return usual * chosen / POINTS if chosen else usual


def drawn(what: str, drawings: Mapping[str, Callable[[], T]]) -> Iterator[tuple[str, T]]:
    """Draw each picture when it is requested; a phase counts it when the next one is, so saving is included."""
    if not drawings:
        return
    with phase(what, len(drawings), counted=True) as current:
        for name, draw in drawings.items():
            current.now(name)
            yield name, draw()
            current.advance()
