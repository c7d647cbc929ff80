"""Bars whose text is never lost on narrow terminals, and lines with times where there is no terminal."""

import fcntl
import io
import logging
import os
import pty
import re
import select
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from fmvae.common import streams
from fmvae.common.logs import Terminal
from fmvae.common.phases import SHORT, phase
from fmvae.training import ProgressBar

TIMES = r"\d\d:\d\d<[\d?:]+"


class Screen:
    """What a pseudo-terminal was sent; a thread reads it, as a full one makes its writer wait."""

    def __init__(self, parent: int):
        self.parent, self.sent, self.ended = parent, b"", threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while select.select([self.parent], [], [], 0.05)[0] or not self.ended.is_set():
            if select.select([self.parent], [], [], 0.05)[0]:
                self.sent += os.read(self.parent, 65536)

    def frames(self) -> list[str]:
        """Every line that was drawn, those that replaced another one, too."""
        self.ended.set()
        self.thread.join()
        plain = re.sub(r"\x1b\[\w", "", self.sent.decode())
        return [frame.rstrip("\n ") for frame in re.split(r"[\r\n]+", plain) if frame.strip()]


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *names: str) -> Iterator[Screen]:
    """Make standard error, or the named streams, a terminal of this width."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    with os.fdopen(child, "w", buffering=1, encoding="utf-8") as file, monkeypatch.context() as patch:
        for name in names or ("stderr",):
            patch.setattr(sys, name, file)
        screen = Screen(parent)
        yield screen
        streams.close_bars()
        screen.frames()
    os.close(parent)


def trained(epochs: int, value: float) -> None:
    """Show the bar of a training of a step per epoch, during its last epochs."""
    before = max(0, epochs - 20)
    trainer = SimpleNamespace(
        epochs=epochs, epoch=before, num_steps=1, terms=("objective", "recon"), stopped_early=False
    )
    bar = ProgressBar()
    bar.on_train_start(trainer)  # type: ignore[arg-type]
    for epoch in range(before + 1, epochs + 1):
        bar.on_step(trainer, 0)  # type: ignore[arg-type]
        trainer.epoch = epoch
        bar.on_epoch_end(trainer, {"epoch": epoch, "val/objective": value, "train/recon": 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize(("columns", "room"), [(80, 20), (60, 3)])
def test_the_bar_of_training_has_room_and_loses_no_text(columns, room, monkeypatch):
    with terminal(monkeypatch, columns) as screen:
        trained(2000, 12345.67)
        frames = screen.frames()
    named = [frame for frame in frames if "val" in frame]
    assert named
    for frame in frames:
        assert len(frame) <= columns
        found = re.fullmatch(rf"epoch \d+/2000(, val 12345\.67)? +\d+%\|(.*)\| {TIMES}", frame)
        assert found, frame
        assert len(found[2]) >= room


def test_negative_control_the_terms_of_an_epoch_in_the_bar_would_leave_none_of_it():
    terms = "train objective 261.66 recon 255.22 kl 6.44 | val objective 262.66 recon 256.22 kl 6.44"
    for columns in (80, 60):
        drawn = tqdm.format_meter(9, 20, 3.0, columns, prefix=f"epoch 12/30 | {terms}", unit="step")
        assert "step/s" not in drawn
        assert len(drawn) <= columns


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    "what", ["features of generated images of each class (two_stage)", "a" * 300, "é" * 90, ""]
)
def test_a_phase_of_any_name_fits(what, columns, monkeypatch):
    with terminal(monkeypatch, columns) as screen:
        with phase(what, 1000) as current:
            for _ in range(3):
                current.advance(300)
                current.now("x" * 100)
        frames = screen.frames()
    assert frames
    assert all(len(frame) <= columns and re.search(rf"%\|.+\| {TIMES}$", frame) for frame in frames), frames


def test_a_text_that_is_too_long_keeps_both_ends(monkeypatch):
    monkeypatch.setattr(streams, "size", lambda stream: os.terminal_size((60, 24)))
    assert streams.fitted("epoch 3/30") == "epoch 3/30"
    short = streams.fitted("features of generated images of each class (two_stage)")
    assert len(short) == 60 - streams.AROUND
    assert short.startswith("features of gen")
    assert short.endswith("(two_stage)")


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_log_has_a_line_for_each_phase_with_its_time(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "fmvae")
    clock = iter([0.0, 2.5, 10.0, 10.0 + SHORT / 2, 20.0, 20.0 + SHORT])
    monkeypatch.setattr("fmvae.common.phases.time.perf_counter", lambda: next(clock))
    with phase("features of test images", 5, detail=", 5 by resnet18") as current:
        current.advance(5)
    for _ in range(2):
        with phase("posteriors", minor=True):
            pass
    assert lines(caplog) == ["  features of test images, 5 by resnet18: 2.5 s", f"  posteriors: {SHORT} s"]


def test_a_phase_that_failed_has_no_time(caplog):
    caplog.set_level(logging.INFO, "fmvae")
    with pytest.raises(ZeroDivisionError), phase("figures", 2):
        raise ZeroDivisionError
    assert lines(caplog) == []


@pytest.mark.parametrize("hidden", [False, True])
def test_a_terminal_shows_the_bar_or_else_the_line(hidden, monkeypatch):
    log = logging.getLogger("fmvae")
    with terminal(monkeypatch, 80, "stderr", "stdout") as screen:
        handler = Terminal()
        log.addHandler(handler)
        level, propagated = log.level, log.propagate
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            with streams.without_bars() if hidden else phase("outer", 2), phase("figures", 2) as current:
                current.advance()
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagated
        shown = "\n".join(screen.frames())
    assert bool(re.search(r"figures +\d+%\|", shown)) is not hidden
    assert bool(re.search(r"figures: \d\.\d s", shown)) is hidden


def test_without_a_terminal_nothing_is_drawn(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with phase("figures", 3) as current:
        current.advance()
    trained(3, 1.0)
    assert file.getvalue() == ""


def test_a_bar_of_a_sweep_stays_when_a_run_has_ended(monkeypatch):
    with terminal(monkeypatch, 80):
        lasting, of_run = streams.new_bar(lasting=True, total=3), streams.new_bar(total=3)
        streams.close_bars()
        assert (lasting.disable, of_run.disable) == (False, True)
        streams.complain("interrupted")
        assert lasting.disable
