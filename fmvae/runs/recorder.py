"""What a run leaves for people to watch: TensorBoard events and metrics.jsonl, one row per epoch."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmvae.errors import RunError
from fmvae.runs.directory import RunDirectory
from fmvae.runs.events import FinalEvents
from fmvae.runs.files import make_directory, read_record, write_bytes, write_record
from fmvae.runs.observer import Observer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INDEX = "index.json"  # of the pictures in a directory
NUM_SHOWN = 5  # settings that TensorBoard's HParams page shows unless it is asked for more
Layout = Mapping[str, Mapping[str, Sequence[str]]]


class Album:
    """Final pictures as PNG files, and beside them, with the final numbers, in TensorBoard.

    Args:
        directory: of the files.
        events: where TensorBoard shows them; None shows nothing there.

    Attributes:
        files: the SHA-256 of each written so far, by name.
    """

    def __init__(self, directory: Path, events: FinalEvents | None = None):
        self.directory, self.events = directory, events
        self.files: dict[str, str] = {}

    def file(self, name: str, content: bytes) -> None:
        """Save a picture that TensorBoard can't show, under its whole name."""
        write_bytes(self.directory / name, content)
        self.files[name] = sha256(content).hexdigest()

    def figure(self, name: str, figure: Figure) -> None:
        """Save a figure as ``<name>.png``, and show the same pixels in TensorBoard as ``figures/<name>``."""
        png = render(figure)
        self.file(f"{name}.png", png)
        if self.events:
            self.events.image(f"figures/{name}", pixels(png))

    def note(self, drawn: Mapping[str, Any]) -> None:
        """Write down beside the files what they show."""
        write_record(self.directory / INDEX, {**drawn, "files": self.files})

    def holds(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the directory has all files of this note."""
        try:
            record = read_record(self.directory / INDEX)
            files = record.pop("files")
        except (RunError, LookupError):
            return False
        return record == drawn and all((self.directory / name).exists() for name in files)

    def show(self, scalars: Mapping[str, float], step: int) -> None:
        """Bring what was drawn, and these numbers by tag, to TensorBoard, at ``step`` (the checkpoint's epoch)."""
        if self.events:
            self.events.scalars(scalars)
            self.events.write(step)


class Recorder(Observer):
    """Writes scalars, glances and text of one run as it trains; its ``album`` takes what is measured at the end.

    Args:
        run: the run's directory.
        epoch: the epoch the run resumes after, 0 for a fresh one: later events of a killed process are purged.
        config_text: the resolved config, shown as text.
        hparams: flat settings by which TensorBoard's HParams page compares runs, the first five by default.
        metrics: tags of the scalars that it shows beside them; none shows all there are. TensorBoard takes the
            list of the first run it finds as that of all.
        layout: of the Custom Scalars page: titles of groups, in them titles of charts, in them tags (regular
            expressions). TensorBoard shows a chart once that many runs ask for.
    """

    def __init__(
        self,
        run: RunDirectory,
        epoch: int,
        config_text: str,
        hparams: Mapping[str, Any],
        metrics: Sequence[str] = (),
        layout: Layout | None = None,
    ):
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams as hparams_summary

        self.run = run
        make_directory(run.path)
        self.writer = SummaryWriter(str(run.path), purge_step=epoch + 1 if epoch else 0)
        self.album = Album(run.figures, FinalEvents(run.path))
        # HParams written into the run's own file; `add_hparams` would make a second, ghost run
        experiment, start, self._end = hparams_summary(dict(hparams), dict.fromkeys(metrics, 0.0))
        events = self.writer.file_writer
        assert events is not None
        if metrics:
            events.add_summary(_in_order(experiment))
        events.add_summary(start)
        if not epoch:
            if layout:
                self.writer.add_custom_scalars(
                    {
                        group: {title: ["Multiline", list(tags)] for title, tags in charts.items()}
                        for group, charts in layout.items()
                    }
                )
            indented = "\n".join(f"    {line}" for line in config_text.splitlines())  # Markdown: a code block
            self.writer.add_text("config", indented, 0)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl from the rows of all epochs; whole each time, so a kill can't leave half a row."""
        write_bytes(self.run.metrics, history_text(history))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One scalar per ``split/quantity`` at ``step`` (the epoch)."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step)

    def on_epoch_end(self, trainer: Any, row: Mapping[str, Any]) -> None:
        # what belongs to no split (beta, the learning rate) in a group of its own
        tags = {tag: tag if "/" in tag else f"schedule/{tag}" for tag in row if tag != "epoch"}
        self.scalars({tag: row[name] for name, tag in tags.items()}, row["epoch"])
        self.write_history(trainer.history)
        self.writer.flush()

    def glance(self, name: str, figure: Figure, step: int) -> None:
        """Show a figure in TensorBoard at ``step`` (the epoch) as ``training/<name>``."""
        self.writer.add_image(f"training/{name}", pixels(render(figure)), step, dataformats="HWC")

    def close(self, *, complete: bool) -> None:
        """End the event file; only a complete run is marked as ended in HParams."""
        events = self.writer.file_writer
        if complete and events is not None:
            events.add_summary(self._end)
        self.writer.close()


def history_text(history: Sequence[Mapping[str, Any]]) -> bytes:
    """What metrics.jsonl holds of the rows of all epochs."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in history).encode()


def _in_order(experiment: Any) -> Any:
    """An HParams experiment whose first settings come first: else the first by the alphabet would be shown."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[attr-defined]

    plugin = experiment.value[0].metadata.plugin_data
    data = HParamsPluginData.FromString(plugin.content)
    for info in data.experiment.hparam_infos[:NUM_SHOWN]:
        info.differs = True  # what TensorBoard sorts by
    plugin.content = data.SerializeToString()
    return experiment


def render(figure: Figure) -> bytes:
    """A figure as a PNG file's content."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def pixels(png: bytes) -> np.ndarray:
    """The pixels of a PNG, (H, W, 3) uint8."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
