"""How times and paths are said to people, and read from them."""

import os
from pathlib import Path


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def expand_home(text: str) -> str:
    """A path as typed, with ``~`` for the home directory; shells leave it alone behind a ``=``."""
    return os.path.expanduser(text)  # noqa: PTH111 (Path's raises for ~nobody)


def typed_path(text: str) -> Path:
    """A path of the command line."""
    return Path(expand_home(text))


def short(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd())) or "."
    except ValueError:
        return str(path)
