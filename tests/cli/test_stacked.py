"""``hydra/launcher=stacked``: each run is the one it would be alone, whatever happens to it or to the others."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.process import Finished, Study, refused
from tests.faults.warmed import warmed

STACKED = "hydra/launcher=stacked"
JOBS = ["beta=0.5,4", "latent_dim=2,3", "seed=0,1"]
EPOCHS = 4


def arguments(study: Study, folder: Path, *overrides: str) -> list[str]:
    settings = [s for s in study.settings if not s.startswith(("output_root=", "trainer.epochs="))]
    chosen = {override.partition("=")[0] for override in overrides}
    usual = ["figures=none", f"trainer.epochs={EPOCHS}", "threads=1", "sweep_name=swept", f"output_root={folder}"]
    return ["-m", *settings, *(s for s in usual if s.partition("=")[0] not in chosen), *overrides]


def swept(study: Study, folder: Path, *overrides: str) -> Finished:
    return warmed().call("train.py", *arguments(study, folder, *overrides))


def runs_in(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted((folder / "swept").glob("*/config.yaml"))}


def states(folder: Path) -> dict[str, str]:
    return {name: json.loads((run / "status.json").read_text())["state"] for name, run in runs_in(folder).items()}


def numbers(run: Path) -> dict[str, float]:
    """The final ones of the test split."""
    test = json.loads((run / "results.json").read_text())["test"]
    return {name: value for name, value in test.items() if name != "settings"}


def assert_same(folder: Path, alone: Path) -> None:
    """Names, numbers and weights, up to rounding; with the final numbers of the report."""
    ours, theirs = runs_in(folder), runs_in(alone)
    assert ours.keys() <= theirs.keys()
    for name, run in ours.items():
        assert numbers(run) == pytest.approx(numbers(theirs[name]), rel=1e-4)
        rows = [[json.loads(line) for line in (r / "metrics.jsonl").open()] for r in (run, theirs[name])]
        assert len(rows[0]) == EPOCHS
        for row, other in zip(*rows, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
        mine, other = (load_file(r / "checkpoints/last.safetensors") for r in (run, theirs[name]))
        assert mine.keys() == other.keys()
        for key, tensor in mine.items():
            if key.startswith("model."):
                assert (tensor - other[key]).norm() <= 1e-3 * other[key].norm(), key


@pytest.fixture(scope="module")
def alone(untrained, tmp_path_factory) -> Path:
    """The sweep, one run after another."""
    folder = tmp_path_factory.mktemp("alone")
    done = swept(untrained, folder, *JOBS)
    assert done.status == 0, done
    return folder


@pytest.fixture(scope="module")
def together(untrained, tmp_path_factory) -> tuple[Path, Finished]:
    folder = tmp_path_factory.mktemp("together")
    return folder, swept(untrained, folder, *JOBS, STACKED)


def test_every_run_is_the_one_it_would_be_alone(together, alone):
    folder, done = together
    assert done.status == 0, done
    assert len(runs_in(folder)) == 8
    assert_same(folder, alone)


def test_negative_control_another_seed_is_noticed(together):
    folder, _ = together
    first, second = (run for name, run in runs_in(folder).items() if name.startswith("base-b4-z2-"))
    assert numbers(first) != pytest.approx(numbers(second), rel=1e-4)


def test_each_log_is_of_one_run(together):
    runs = runs_in(together[0])
    for name, run in runs.items():
        text = (run / "train.log").read_text()
        assert text.count(f"epoch {EPOCHS}/{EPOCHS}") == 1
        assert not [other for other in runs if other != name and other in text]


def test_given_again_it_trains_nothing(together, untrained):
    folder, _ = together
    before = {name: (run / "results.json").stat().st_mtime_ns for name, run in runs_in(folder).items()}
    done = swept(untrained, folder, *JOBS, STACKED)
    assert done.status == 0, done
    assert "8 of 8 runs are complete" in done.stdout
    assert before == {name: (run / "results.json").stat().st_mtime_ns for name, run in runs_in(folder).items()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.one_in(2)
def test_a_sweep_that_is_ended_is_finished_by_the_same_command(number, untrained, alone, tmp_path):
    jobs = [*JOBS[:2], "seed=0"]
    process, output = warmed().start("train.py", *arguments(untrained, tmp_path, *jobs, STACKED))
    deadline = time.monotonic() + 120
    # a second row is written after the first checkpoint
    while not [file for file in tmp_path.glob("swept/*/metrics.jsonl") if file.read_text().count("\n") > 1]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process, number)
    ended = warmed().finish(process, output)
    assert ended.status in ((143,) if number == signal.SIGTERM else (-number,)), ended
    if number == signal.SIGTERM:
        assert set(states(tmp_path).values()) == {"interrupted"}
    done = swept(untrained, tmp_path, *jobs, STACKED)
    assert done.status == 0, done
    assert "resuming" in done.stdout
    assert len(runs_in(tmp_path)) == 4
    assert_same(tmp_path, alone)


@pytest.mark.slow
def test_one_that_fails_stops_no_other_and_those_that_fit_nowhere_run_alone(untrained, tmp_path):
    done = swept(
        untrained, tmp_path, "model=base,beta", "optimizer.lr=1e-3,2e-3,1e30", STACKED, "trainer.epochs=2"
    )
    assert done.status == 1, done
    found = states(tmp_path)
    assert sorted(found.values()) == ["complete"] * 4 + ["failed"] * 2
    assert "fmvae: error: epoch 1, step 2:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    done = swept(untrained, tmp_path, "model=base", "seed=5", STACKED, "trainer.epochs=2")
    assert done.status == 0, done
    assert "not stacked: base-b1-" in done.stdout
    assert "it is the only job" in done.stdout


def test_results_say_that_a_run_was_stacked(together, alone):
    for folder, epochs in ((together[0], EPOCHS), (alone, None)):
        for run in runs_in(folder).values():
            results = json.loads((run / "results.json").read_text())
            assert results["provenance"]["training"].get("stacked_epochs") == epochs
            assert ("stacked: 8 runs" in (run / "train.log").read_text()) is bool(epochs)
    assert together[1].stdout.count("stacked: 8 runs") == 1


def test_times_are_those_of_a_run_and_not_of_the_stack(together):
    """A forecast adds them up."""
    line = next(line for line in together[1].stdout.splitlines() if f"epoch {EPOCHS}/{EPOCHS}" in line)
    shown = float(line.rpartition("| ")[2].partition(" s,")[0])
    name = line.partition(":")[0]
    kept = json.loads((runs_in(together[0])[name] / "timing.json").read_text())["epoch_seconds"][-1]
    assert kept == pytest.approx(shown / 8, abs=0.05 / 8 + 0.001)


def test_jobs_of_the_same_run_are_one(untrained, tmp_path):
    done = swept(untrained, tmp_path, "seed=1,1,2", STACKED, "trainer.epochs=1", "hydra/sweeper=basic")
    assert (done.status, len(runs_in(tmp_path))) == (0, 2), done
    assert "held by" not in done.stdout + done.stderr


@pytest.mark.parametrize("size", ["0", "many", "1.5"])
def test_a_size_that_is_none_is_refused(size, untrained, tmp_path):
    line = refused(swept(untrained, tmp_path, *JOBS, STACKED, f"hydra.launcher.size={size}"))
    assert line.startswith("fmvae: error: hydra.launcher.size: ")
    assert not runs_in(tmp_path)
