"""Standard streams: closed ones, encodings that lack a character, and terminals with progress bars.

Only this module decides what a stream can show and whether it is a terminal.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

HANDLER = "fmvae.stand_in"
STAND_INS = {"−": "-", "–": "-", "×": "x", "±": "+-", "→": "->", "≥": ">=", "≤": "<=", "σ": "sigma", "β": "beta"}

_bars: list[tqdm] = []


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


def new_bar(**settings: Any) -> tqdm:
    """Return a progress bar on standard error (with tqdm's settings). It is hidden unless that is a terminal."""
    from tqdm import tqdm

    shown = is_terminal(sys.stderr)
    bar = tqdm(**settings, leave=False, file=sys.stderr, dynamic_ncols=True, disable=not shown)
    if shown:
        _bars.append(bar)
    return bar


def close_bars() -> None:
    """Remove all progress bars from the terminal."""
    while _bars:
        with suppress(OSError, ValueError):  # the terminal may be gone
            _bars.pop().close()


@contextmanager
def above_bars() -> Iterator[None]:
    """Remove progress bars from the terminal inside, and draw them again below what was written."""
    if not any(not bar.disable for bar in _bars):  # a closed bar is disabled
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stdout):
        yield


def complain(line: str) -> None:
    """Write a program's last line to standard error, after removing progress bars. Ignore errors of the stream."""
    close_bars()
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
