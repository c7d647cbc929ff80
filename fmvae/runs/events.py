"""A run's last word in TensorBoard: final numbers and figures, in one event file that is replaced as a whole."""

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
    """What was measured and drawn of one checkpoint: every tag once, whoever measured last.

    Appending to the run's other events would show a number twice after a killed or a second measuring. Nothing is
    written before ``write``.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._summaries = {}

    def scalars(self, values: Mapping[str, float]) -> None:
        """The final numbers by tag: all of them, as those of an earlier file are not kept."""
        from torch.utils.tensorboard.summary import scalar

        self._summaries |= {tag: scalar(tag, value) for tag, value in values.items()}

    def image(self, tag: str, pixels: np.ndarray) -> None:
        """A figure's pixels (H, W, 3) uint8; those of the same checkpoint that are not drawn again are kept."""
        from torch.utils.tensorboard.summary import image

        self._summaries[tag] = image(tag, pixels, dataformats="HWC")

    def write(self, step: int) -> None:
        """Put one file with all of it at ``step``, the checkpoint's epoch, in the place of an earlier one.

        A file that says the same already is left alone.
        """
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

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
                events[tag] = old  # with the time of its measuring
            else:
                events[tag] = Event(wall_time=time.time(), step=step, summary=summary)
        if events == before and len(files) == 1:
            return
        # the time comes first and the suffix sorts behind a number: read after all that was recorded in training
        path = self.directory / f"{PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}{SUFFIX}"
        header = Event(wall_time=time.time(), file_version="brain.Event:2")
        write_bytes(path, _records(header, *events.values()))
        for file in files:
            if file != path:
                file.unlink()


def hide_events(directory: Path) -> None:
    """Give event files a name that TensorBoard passes over; nothing else about them changes."""
    for file in directory.glob(f"{PREFIX}*"):
        file.rename(file.with_name(file.name.replace("tfevents", "hidden", 1)))


def _read(file: Path) -> list:
    """The summaries of an event file."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return [event for event in LegacyEventFileLoader(str(file)).Load() if event.summary.value]


def _records(*events) -> bytes:
    """An event file's content."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
    return file.getvalue()
