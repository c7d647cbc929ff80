"""Write TensorBoard events and metrics.jsonl (one row per epoch) during a run, and figures at its end."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmvae.errors import RunError
from fmvae.runs.directory import RunDirectory
from fmvae.runs.events import FinalEvents, first_curve, make_earlier
from fmvae.runs.files import make_directory, read_record, write_bytes, write_record
from fmvae.runs.observer import Observer
from fmvae.runs.tracking import Reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INDEX = "index.json"  # lists the pictures in a directory
DPI = 110  # pixels per inch of a picture
NUM_SHOWN = 5  # settings that TensorBoard's HParams page shows by default
# groups of the curves in TensorBoard, which sorts groups by name, capitals first
CURVES = {"train": "Train", "val": "Val"}
Layout = Mapping[str, Mapping[str, Sequence[str]]]


class Album:
    """Final pictures, as PNG files and in TensorBoard (there with the final numbers).

    Args:
        directory: the folder of the files.
        events: the final events for TensorBoard; None writes none.
        reporter: to the user's tracker; None without one.

    Attributes:
        files: the SHA-256 of each file written so far, by name.
    """

    def __init__(self, directory: Path, events: FinalEvents | None = None, reporter: Reporter | None = None):
        self.directory, self.events, self.reporter = directory, events, reporter
        self.files: dict[str, str] = {}

    def file(self, name: str, content: bytes) -> None:
        """Save a picture as the file ``name``, and not in TensorBoard."""
        write_bytes(self.directory / name, content)
        self.files[name] = sha256(content).hexdigest()

    def figure(self, name: str, figure: Figure, formats: Sequence[str] = ("png",), dpi: int = DPI) -> None:
        """Save a figure as ``<name>.<format>``, and show its pixels in TensorBoard as ``figures/<name>``."""
        made = {kind: render(figure, kind, dpi) for kind in formats}
        for kind, content in made.items():
            self.file(f"{name}.{kind}", content)
        if self.events:
            png = made["png"] if "png" in made and dpi == DPI else render(figure)
            self.events.image(f"figures/{name}", pixels(png))

    def note(self, drawn: Mapping[str, Any]) -> None:
        """Write index.json: what the files show (``drawn``), and their digests."""
        write_record(self.directory / INDEX, {**drawn, "files": self.files})

    def holds(self, drawn: Mapping[str, Any]) -> bool:
        """Return whether index.json has this ``drawn``, and all its files exist."""
        try:
            record = read_record(self.directory / INDEX)
            files = record.pop("files")
        except (RunError, LookupError):
            return False
        return record == drawn and all((self.directory / name).exists() for name in files)

    def show(self, scalars: Mapping[str, float], step: int) -> None:
        """Show the figures and these numbers by tag at ``step`` (the checkpoint's epoch): TensorBoard, tracker."""
        if self.events:
            self.events.scalars(scalars)
            self.events.write(step)
        if self.reporter:
            self.reporter.numbers(scalars, step)
            for name in _listed(self.directory) or sorted(self.files):
                self.reporter.file(self.directory / name)


def _listed(directory: Path) -> list[str]:
    """Return the names of the files that index.json lists; none if it is missing or damaged."""
    try:
        return [name for name in read_record(directory / INDEX)["files"] if (directory / name).is_file()]
    except (RunError, LookupError, TypeError):
        return []


class Recorder(Observer):
    """Write scalars, figures and text of a run during training. ``album`` is for the final figures and numbers.

    Args:
        run: the run's directory.
        epoch: the epoch after which the run resumes, 0 for a new run. Later events of a killed process are purged.
        config_text: the resolved config, shown as text.
        hparams: flat settings for TensorBoard's HParams page, which shows the first five by default.
        metrics: tags of the scalars on that page; empty shows all scalars. TensorBoard applies the list of the
            first run that it finds to all runs.
        layout: of the Custom Scalars page: tags (regular expressions) by title of chart, by title of group. If
            several runs have the same chart, TensorBoard shows it once.
        other_hparams: settings that other runs of the folder may have, each with a value of its type. TensorBoard
            takes the columns of that page from the first run that it finds.
        first: names of settings that are shown before the others.
        links: paths from the run's directory by what they lead to, for the text page.
        reporter: to the user's tracker, which gets the same numbers and figures; None without one.
    """

    def __init__(
        self,
        run: RunDirectory,
        epoch: int,
        config_text: str,
        hparams: Mapping[str, Any],
        metrics: Sequence[str] = (),
        layout: Layout | None = None,
        *,
        other_hparams: Mapping[str, Any] | None = None,
        first: Sequence[str] = (),
        links: Mapping[str, str] | None = None,
        reporter: Reporter | None = None,
    ):
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams as hparams_summary

        self.run = run
        make_directory(run.path)
        make_earlier(run.path, int(time.time()))
        self.writer = SummaryWriter(str(run.path), purge_step=epoch + 1 if epoch else 0)
        self.reporter = reporter
        self.album = Album(run.figures, FinalEvents(run.path), reporter)
        # write HParams into the run's own file; `add_hparams` would create a second run in a subfolder
        everything = {**hparams, **{k: v for k, v in (other_hparams or {}).items() if k not in hparams}}
        experiment, _, _ = hparams_summary(everything, dict.fromkeys(metrics, 0.0))
        _, start, self._end = hparams_summary(dict(hparams), {})
        events = self.writer.file_writer
        assert events is not None
        if metrics:
            events.add_summary(_in_order(experiment, [*first, *hparams]))
        events.add_summary(start)
        self._groups = CURVES if not epoch or first_curve(run.path) not in CURVES else {}
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
            if links:
                rows = "\n".join(f"| {name} | `{path}` |" for name, path in links.items())
                head = "Pages of this run, from its directory. Open them in a browser.\n\n| | |\n|---|---|\n"
                self.writer.add_text("pages", head + rows, 0)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl from the rows of all epochs. It is replaced atomically: no row is incomplete."""
        write_bytes(self.run.metrics, history_text(history))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write one scalar for each tag ``split/quantity`` at ``step`` (the epoch)."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step)

    def on_epoch_end(self, trainer: Any, row: Mapping[str, Any]) -> None:
        values = by_tag(row, self._groups)
        self.scalars(values, row["epoch"])
        if self.reporter:
            self.reporter.epoch(values, row["epoch"])
        self.write_history(trainer.history)
        self.writer.flush()

    def catch_up(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Report the epochs before this process to a tracker that does not have them."""
        if self.reporter:
            report_history(self.reporter, history, self._groups)

    def glance(self, name: str, figure: Figure, step: int) -> None:
        """Show a figure in TensorBoard at ``step`` (the epoch) as ``training/<name>``."""
        png = render(figure)
        self.writer.add_image(f"training/{name}", pixels(png), step, dataformats="HWC")
        if self.reporter:
            self.reporter.picture(name, png, step)

    def close(self, *, complete: bool) -> None:
        """Close the event file. A complete run is marked as ended in HParams."""
        events = self.writer.file_writer
        if complete and events is not None:
            events.add_summary(self._end)
        self.writer.close()


def by_tag(row: Mapping[str, Any], groups: Mapping[str, str] = CURVES) -> dict[str, float]:
    """Return the numbers of an epoch by tag; those without a split (beta, learning rate) are in ``schedule``."""

    def tag(name: str) -> str:
        split, found, quantity = name.partition("/")
        return f"{groups.get(split, split)}/{quantity}" if found else f"schedule/{name}"

    return {tag(name): value for name, value in row.items() if name != "epoch"}


def report_history(
    reporter: Reporter, history: Sequence[Mapping[str, Any]], groups: Mapping[str, str] = CURVES
) -> None:
    """Report all epochs of a history; the reporter leaves out those that its tracker has."""
    for row in history:
        reporter.epoch(by_tag(row, groups), row["epoch"])


def history_text(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the content of metrics.jsonl for the rows of all epochs."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in history).encode()


def _in_order(experiment: Any, names: Sequence[str]) -> Any:
    """Make HParams show these settings by default, the first five; it would choose the alphabetically first."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[attr-defined]

    plugin = experiment.value[0].metadata.plugin_data
    data = HParamsPluginData.FromString(plugin.content)
    shown = set(list(dict.fromkeys(names))[:NUM_SHOWN])
    for info in data.experiment.hparam_infos:
        info.differs = info.name in shown  # TensorBoard sorts by this field
    plugin.content = data.SerializeToString()
    return experiment


def render(figure: Figure, kind: str = "png", dpi: int = DPI) -> bytes:
    """Return a figure as ``png``, ``pdf`` or ``svg``; the same figure always gives the same bytes.

    Args:
        dpi: pixels per inch; in the others, of the pictures in it.
    """
    file = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    figure.savefig(file, format=kind, dpi=dpi, metadata=dates.get(kind))
    return file.getvalue()


def pixels(png: bytes) -> np.ndarray:
    """Return the pixels of a PNG, (H, W, 3) uint8."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
