"""Format durations, paths and texts of others for people, and read paths that they typed."""

import os
import unicodedata
from pathlib import Path

BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # characters with a width and nothing to see that Unicode counts as text
JOINERS = "\u200c\u200d"  # of emoji and of scripts; the only invisible characters that change what is seen


def duration(seconds: float) -> str:
    """Return a duration as text: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def roughly(seconds: float) -> str:
    """Return an estimated duration as text, without digits that it can't support: 40 s, 4 min, 2 h 10 min."""
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10)} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    tens = round(minutes / 10)
    return f"{tens // 6} h {tens % 6 * 10:02d} min" if tens < 600 else f"{round(tens / 6)} h"


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print, whoever wrote it.

    White space becomes single spaces, control characters (which a terminal would obey) become "?", invisible ones
    (such as those that turn the direction of text) are left out.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(_visible(character) for character in unicodedata.normalize("NFC", text))
    return " ".join(text.split()).strip(JOINERS)


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if character.isspace() or character in BLANK:
        return " "
    if kind == "Cf":
        return character * (character in JOINERS)
    return "?" if kind in ("Cc", "Cs", "Co", "Cn") else character


def expand_home(text: str) -> str:
    """Expand ``~`` in a typed path to the home directory; shells do not expand it after a ``=``."""
    return os.path.expanduser(text)  # noqa: PTH111 (Path's raises for ~nobody)


def typed_path(text: str) -> Path:
    """Return a path typed on the command line, with ``~`` expanded."""
    return Path(expand_home(text))


def short(path: Path) -> str:
    """Return a path relative to the working directory if it is inside it, or else unchanged."""
    try:
        return str(path.resolve().relative_to(Path.cwd())) or "."
    except ValueError:
        return str(path)
