"""timing.json: what was measured on busy cores is told from what was not."""

import json

import pytest

from fmvae.runs.directory import RunDirectory
from fmvae.runs.timing import LAST_EPOCHS, Pace, Timing, typical


def test_a_pace_is_that_of_the_last_epochs_on_quiet_cores():
    quiet, busy = Timing([9.0, *[2.0] * LAST_EPOCHS, 30.0], [0.0] * 7), Timing([2.0, 3.0, 30.0], [0.1, 0.0, 0.9])
    assert quiet.pace() == Pace(2.0, False)
    assert busy.pace() == Pace(2.5, False)
    assert Timing([2.0, 3.0, 30.0], [0.0, 0.0, 0.0]).pace() == Pace(3.0, False)  # the control: all count
    assert Timing([20.0, 40.0, 30.0], [0.9, 0.5, 0.9]).pace() == Pace(30.0, True)
    assert Timing([], []).pace() is None


def test_paces_of_several_runs_are_those_on_quiet_cores():
    assert typical([Pace(2.0, False), Pace(4.0, False), Pace(90.0, True)]) == Pace(3.0, False)
    assert typical([Pace(80.0, True), Pace(90.0, True)]) == Pace(85.0, True)


def test_what_is_written_is_read(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    timing = Timing([], [])
    timing.add(1.23456, 0.456)
    timing.add(2.0, 0.0)
    timing.write(run)
    assert Timing.read(run) == Timing([1.235, 2.0], [0.46, 0.0])
    assert Timing.read(run).first(1) == Timing([1.235], [0.46])


@pytest.mark.parametrize(
    "record",
    [{"epoch_seconds": [3.0, 4.0]}, {"epoch_seconds": [3.0, 4.0], "busy_share": [0, 0, 1]}],
)
def test_files_of_earlier_versions_and_of_other_lengths_are_read(record, tmp_path):
    run = RunDirectory(tmp_path)
    run.timing.write_text(json.dumps(record))
    assert Timing.read(run) == Timing([3.0, 4.0], [0.0, 0.0])


@pytest.mark.parametrize("seconds", ['"12"', "{}", "null", "[NaN, 1, 2]", "[1, null]", "[1e400]"])
def test_damaged_times_are_none(seconds, tmp_path):
    run = RunDirectory(tmp_path)
    run.timing.write_text(f'{{"epoch_seconds": {seconds}}}')
    assert Timing.read(run) == Timing([], [])
    run.timing.write_text(f'{{"epoch_seconds": [1.0], "busy_share": {seconds}}}')
    assert Timing.read(run).pace() in (None, Pace(1.0, False))
