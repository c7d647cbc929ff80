"""Lines that can't be written stop nothing; what is wrong with a line itself is still told."""

import logging
import sys
from pathlib import Path

import pytest

from fmvae.common.logs import LogFile, Terminal


class Full:
    def write(self, text: str) -> None:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture(params=["terminal", "file"])
def logger(request, monkeypatch, tmp_path) -> logging.Logger:
    monkeypatch.setattr(sys, "stdout", Full())
    handler = Terminal() if request.param == "terminal" else LogFile("/dev/full")
    logger = logging.Logger("trial")
    logger.addHandler(handler)
    return logger


def test_a_line_that_cannot_be_written_is_left_out(logger, capfd):
    logger.warning("a line")
    logger.handlers[0].close()
    assert capfd.readouterr().err == ""


def test_a_line_that_is_wrong_is_told(tmp_path: Path, capfd):
    logger = logging.Logger("trial")
    logger.addHandler(LogFile(tmp_path / "log"))
    logger.warning("%d", "no number")
    assert "TypeError" in capfd.readouterr().err


def test_negative_control_of_the_standard_library_it_is_pages(monkeypatch, capfd):
    logger = logging.Logger("trial")
    logger.addHandler(logging.StreamHandler(Full()))  # type: ignore[arg-type]
    logger.warning("a line")
    assert "Traceback" in capfd.readouterr().err
