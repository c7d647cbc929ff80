"""What a process left behind, and where the project lies."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Finished(NamedTuple):
    """What a process left behind."""

    status: int
    stdout: str
    stderr: str
