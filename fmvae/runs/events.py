"""Final numbers and figures of a run for TensorBoard, in one event file that is replaced as a whole."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fmvae.runs.files import write_bytes

PREFIX = "events.out.tfevents."  # TensorBoard reads every file with `tfevents` in its name
SUFFIX = ".final"


class FinalEvents:
    """The measured numbers and drawn figures of one checkpoint, each tag once. ``write`` writes the file.

    Appended to the run's other events, a number would appear twice after a second or an interrupted measurement.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._summaries = {}

    def scalars(self, values: Mapping[str, float]) -> None:
        """Add the final numbers by tag. Numbers in an earlier file are dropped, so all of them must be given."""
        from torch.utils.tensorboard.summary import scalar

        self._summaries |= {tag: scalar(tag, value) for tag, value in values.items()}

    def image(self, tag: str, pixels: np.ndarray) -> None:
        """Add a figure: pixels (H, W, 3) uint8. Figures of the same checkpoint in an earlier file are kept."""
        from torch.utils.tensorboard.summary import image

        self._summaries[tag] = image(tag, pixels, dataformats="HWC")

    def write(self, step: int) -> None:
        """Write everything into one file, at ``step`` (the checkpoint's epoch), and remove an earlier file.

        No-op if the earlier file has the same content.
        """
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

        now = int(time.time())
        make_earlier(self.directory, now + 1)  # those of this process may be of this second
        files = sorted(self.directory.glob(f"{PREFIX}*{SUFFIX}"))
        before = {event.summary.value[0].tag: event for file in files for event in _read(file)}
        events = {
            tag: event
            for tag, event in before.items()
            if event.step == step and not event.summary.value[0].HasField("simple_value")
        }
        for tag, summary in self._summaries.items():
            old = before.get(tag)
            if old is not None and (old.step, old.summary) == (step, summary):
                events[tag] = old  # keeps the time of its measurement
            else:
                events[tag] = Event(wall_time=time.time(), step=step, summary=summary)
        if events == before and len(files) == 1:
            return
        path = self.directory / f"{PREFIX}{now:010d}.{socket.gethostname()}.{os.getpid()}{SUFFIX}"
        header = Event(wall_time=time.time(), file_version="brain.Event:2")
        write_bytes(path, _records(header, *events.values()))
        for file in files:
            if file != path:
                file.unlink()


def first_curve(directory: Path) -> str | None:
    """Return the group of the first number that training wrote, as ``train`` of ``train/kl``; None without one."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for file in sorted(directory.glob(f"{PREFIX}*")):
        if file.name.endswith(SUFFIX):
            continue
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.HasField("simple_value") and not value.tag.startswith("schedule/"):
                    return value.tag.partition("/")[0]
    return None


def make_earlier(directory: Path, second: int) -> None:
    """Rename a run's event files, if necessary, so that they come before ``second`` by their names.

    TensorBoard reads a run's files in the order of their names, which begin with the second of their creation.
    After that come host, process and a counter that is compared as text ("10" before "9"). So a file that is
    created in the same second, or after the clock was set back, may be read before those that it continues.
    TensorBoard then drops events of both.
    """
    seconds = {file: then for file in directory.glob(f"{PREFIX}*") if (then := _second(file)) is not None}
    if max(seconds.values(), default=-1) < second:
        return
    files = sorted(seconds)  # in the order in which they are read, which they keep
    for before, file in enumerate(files):
        then = max(min(seconds[file], second - len(files) + before), 0)  # never later, so that no name is taken
        target = file.with_name(f"{PREFIX}{then:010d}.{file.name.removeprefix(PREFIX).partition('.')[2]}")
        if not target.exists():  # only a clock before 1970 gives two files one name
            file.rename(target)


def _second(file: Path) -> int | None:
    """Return the second of creation in an event file's name, None without one."""
    digits = file.name.removeprefix(PREFIX).partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdecimal() else None


def hide_events(directory: Path) -> None:
    """Rename event files so that TensorBoard ignores them."""
    for file in directory.glob(f"{PREFIX}*"):
        file.rename(file.with_name(file.name.replace("tfevents", "hidden", 1)))


def _read(file: Path) -> list:
    """Return the events of a file that have a summary."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return [event for event in LegacyEventFileLoader(str(file)).Load() if event.summary.value]


def _records(*events) -> bytes:
    """Return the content of an event file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
    return file.getvalue()
