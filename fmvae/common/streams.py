"""Standard streams: closed ones, encodings that lack a character, and terminals with progress bars.

Only this module decides what a stream can show and whether it is a terminal.
"""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fmvae.common.text import one_line

if TYPE_CHECKING:
    from tqdm import tqdm

HANDLER = "fmvae.stand_in"
STAND_INS = {"−": "-", "–": "-", "×": "x", "±": "+-", "→": "->", "≥": ">=", "≤": "<=", "σ": "sigma", "β": "beta"}

# how bars look: their text, which is fitted to the terminal, comes before anything that takes space from it
MEASURED = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
COUNTED = "{desc} |{bar}| {n_fmt}/{total_fmt}"  # for units that take different times
NUMBERED = "{desc} |{bar}|"
NAMED = "{desc} {elapsed}"
AROUND = 28  # columns of a bar beside its text: share, times of up to 99 hours, and three of the bar itself
AROUND_NUMBERED = 6  # of a NUMBERED bar, which shows neither
HAD_A_BAR = "had_a_bar"  # attribute of a log record: a terminal with bars has shown what it says

_bars: list[tqdm] = []
_lasting: list[tqdm] = []  # of a sweep; they stay when a run has ended
_hidden = False


def stand_in(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by similar ones, by letters without accents, or by ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    bare = (unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() for sign in signs)
    plain = "".join(STAND_INS.get(sign) or letter or "?" for sign, letter in zip(signs, bare, strict=True))
    return plain, error.end


codecs.register_error(HANDLER, stand_in)


def set_up() -> None:
    """Make standard output and standard error safe to write to. May be called repeatedly.

    A closed stream (``2>&-``) becomes the null device. Its descriptor is opened as well: otherwise the next file
    that is opened gets this number, and receives what C libraries write to standard error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open as long as the process)
        elif isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors=HANDLER)


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal; False if it is closed or missing."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):  # ValueError: closed
        return False


def hide_bars() -> None:
    """Show no bars in this process from now on, as several processes share the terminal."""
    global _hidden
    _hidden = True


@contextmanager
def without_bars() -> Iterator[None]:
    """Show no bars inside."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


def bars_shown() -> bool:
    """Return whether bars are shown: on standard error, if that is a terminal."""
    return not _hidden and is_terminal(sys.stderr)


def size(stream: Any) -> os.terminal_size:
    """Return the columns and lines of a stream's terminal; of the user's setting, or 80 and 24, if it is none."""
    with suppress(AttributeError, ValueError, OSError):
        found = os.get_terminal_size(stream.fileno())
        if found.columns and found.lines:
            return found
    return shutil.get_terminal_size()


def cut(text: str, stream: Any) -> str:
    """Return a text for a stream. If that is a terminal, lines that are too long for it end in "…"."""
    if not is_terminal(stream):
        return text
    columns = size(stream).columns
    return "\n".join(cut_line(line, columns) for line in text.split("\n"))


def cut_line(line: str, columns: int) -> str:
    """Return a line that takes at most this number of columns; "…" is in place of what is left out."""
    if sum(map(_columns, line)) <= columns:
        return line
    taken = 1  # by the "…"
    for index, character in enumerate(line):
        taken += _columns(character)
        if taken > columns:
            return f"{line[:index]}…"
    return line


def _columns(character: str) -> int:
    """Return how many columns of a terminal a character takes: two of East Asian scripts, none of accents."""
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, around: int = AROUND) -> str:
    """Return a bar's text, shortened in the middle if it and ``around`` columns do not fit into the terminal."""
    most = max(8, size(sys.stderr).columns - around)
    kept = most - 1
    return text if len(text) <= most else f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def new_bar(*, lasting: bool = False, hidden: bool = False, **settings: Any) -> tqdm:
    """Return a progress bar on standard error (with tqdm's settings), hidden unless ``bars_shown``.

    Args:
        lasting: the bar is not removed by ``close_bars``.
    """
    from tqdm import tqdm

    shown = bars_shown() and not hidden
    settings.setdefault("bar_format", MEASURED if settings.get("total") else NAMED)
    bar = tqdm(**settings, leave=False, file=sys.stderr, dynamic_ncols=True, disable=not shown)
    if shown:
        (_lasting if lasting else _bars).append(bar)
    return bar


def close_bars() -> None:
    """Remove the progress bars of a run from the terminal."""
    _close(_bars)


def _close(bars: list[tqdm]) -> None:
    while bars:
        with suppress(OSError, ValueError):  # the terminal may be gone
            bars.pop().close()


@contextmanager
def above_bars() -> Iterator[None]:
    """Remove progress bars from the terminal inside, and draw them again below what was written."""
    if not any(not bar.disable for bar in (*_bars, *_lasting)):  # a closed bar is disabled
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stdout):
        yield


def complain(line: str) -> None:
    """Write a program's last line to standard error, after removing progress bars. Ignore errors of the stream."""
    close_bars()
    _close(_lasting)
    with suppress(OSError, ValueError):
        print(one_line(line), file=sys.stderr, flush=True)
