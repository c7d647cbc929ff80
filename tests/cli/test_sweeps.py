"""A sweep brings every run to its end, whatever happens to it and to the others."""

import json
import os
import random
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fmvae.sweeps.directory import SweepDirectory
from tests.cli.process import Study, refused, snapshot, succeeded
from tests.faults.warmed import alive, warmed

SIX = ["-m", "beta=0.5,1,4", "latent_dim=2,3", "sweep_name=six", "trainer.epochs=2"]
RESULTS = ("results.json", "metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors")

# by the job's beta: what goes wrong in it, once its directory is there
FAILURES = """
from fmvae.experiments import lifecycle
prepare = lifecycle._prepare
def failing(run, config, *others):
    beta = config["beta"]["value"]
    if beta == 10:
        raise ValueError("odd\\nin two lines")
    if beta == 11:
        raise MemoryError
    if beta == 12:
        raise SystemExit(3)
    if beta == 13:
        raise SystemExit
    return prepare(run, config, *others)
lifecycle._prepare = failing
"""


def contents(folder: Path) -> dict[str, bytes]:
    """What of a sweep's finished runs must be the same however often it was interrupted."""
    runs = [path.parent for path in folder.glob("*/results.json")]
    return {f"{run.name}/{name}": (run / name).read_bytes() for run in runs for name in RESULTS}


def start(study: Study, *arguments: str) -> tuple[int, Path]:
    """train.py in the background: its process, and where its output goes."""
    return warmed().start("train.py", *study.settings, *arguments)


class Small(Study):
    """With a model of few weights, which are soon written."""

    @property
    def settings(self) -> list[str]:
        return [*super().settings, "model.hidden_dim=16"]


@pytest.fixture(scope="module")
def six(untrained, tmp_path_factory) -> Study:
    """Six runs that nothing disturbed. Not to be changed."""
    ours = Small(untrained.data, untrained.sha256, tmp_path_factory.mktemp("six"))
    stdout = succeeded(ours.train(*SIX))
    assert "six: 6 complete" in stdout
    return ours


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_sweep_that_is_killed_again_and_again_ends_as_an_undisturbed_one(kills, six, tmp_path):
    ours = replace(six, outputs=tmp_path)
    rng, killed = random.Random(4), 0
    for _ in range(kills):
        process, output = start(ours, *SIX)
        time.sleep(rng.uniform(0.5, 3))
        if alive(process):
            os.kill(process, signal.SIGKILL)
            killed += 1
        warmed().finish(process, output)
    assert killed > 0
    succeeded(ours.train(*SIX))
    assert contents(tmp_path / "six") == contents(six.outputs / "six")


@pytest.mark.slow
def test_the_same_sweep_twice_at_once_trains_no_run_twice(six, tmp_path):
    ours = replace(six, outputs=tmp_path)
    both = [start(ours, *SIX) for _ in range(2)]
    said = [warmed().finish(*started) for started in both]
    assert [done.status for done in said] == [0, 0], said
    logs = [path.read_text() for path in tmp_path.glob("six/*/train.log")]
    assert [log.count(" training ") for log in logs] == [1] * 6
    assert not any("resuming" in log for log in logs)
    told = "".join(done.stdout + done.stderr for done in said)
    # whichever comes second finds runs that are being trained or complete, and says of each what it finds
    assert "fmvae: error" not in told  # nothing failed
    assert contents(tmp_path / "six") == contents(six.outputs / "six")


def test_the_same_sweep_again_writes_nothing_but_its_report(six, tmp_path):
    ours = six.copied_to(tmp_path / "outputs")
    before = {
        name: digest
        for name, digest in snapshot(ours.outputs).items()
        if not name.startswith(("six/report", "six/sweep.json"))
    }
    stdout = succeeded(ours.train(*SIX, cwd=tmp_path))
    after = {
        name: digest
        for name, digest in snapshot(ours.outputs).items()
        if not name.startswith(("six/report", "six/sweep.json"))
    }
    assert after == before
    assert "6 of 6 runs are complete" in stdout
    assert "training " not in stdout


def test_no_kind_of_failure_stops_the_others(six, tmp_path):
    ours = replace(six, outputs=tmp_path)
    sweep = ["-m", "beta=10,0.5,11,12,13,4", "latent_dim=2", "sweep_name=six", "trainer.epochs=2"]
    finished = warmed().call("train.py", *ours.settings, *sweep, prelude=FAILURES)
    assert finished.status == 1
    assert "Traceback" not in finished.stdout + finished.stderr
    assert finished.stderr.splitlines()[-1].endswith(
        "4 of 6 runs failed; see the lines above; repeat the command to try them again"
    )
    undisturbed = contents(six.outputs / "six")
    found = contents(tmp_path / "six")
    assert len(found) == 2 * len(RESULTS)
    assert all(undisturbed[name] == content for name, content in found.items())
    reasons = {
        "10": "ValueError: odd in two lines",
        "11": "MemoryError",
        "12": "SystemExit: 3",
        "13": "SystemExit",
    }
    for beta, reason in reasons.items():
        (run,) = tmp_path.glob(f"six/base-b{beta}-z2-*")
        status = json.loads((run / "status.json").read_text())
        assert (status["state"], status["error"].rstrip(": ")) == ("failed", reason)
        assert reason in finished.stdout
        assert "Traceback" in (run / "train.log").read_text()
    # what is mended goes on, and nothing else is trained
    stdout = succeeded(ours.train(*sweep))
    assert len(re.findall("^training ", stdout, re.MULTILINE)) == 4
    assert "six: 6 complete" in stdout


def test_a_run_that_cannot_begin_leaves_its_reason_in_the_sweep(six, tmp_path):
    ours = replace(six, outputs=tmp_path)
    finished = ours.train("-m", "data.val_size=64,900", "sweep_name=two")
    assert finished.status == 1
    (failed,) = (s for s in tmp_path.glob("two/*/status.json") if json.loads(s.read_text())["state"] == "failed")
    reason = json.loads(failed.read_text())["error"]
    assert "data.val_size" in reason
    assert reason in finished.stdout
    assert "two: 1 complete, 1 failed" in finished.stdout


def test_an_objective_that_is_not_measured_is_every_runs_own_failure(six, tmp_path):
    """In a search it ends all (tests/cli/test_launchers.py): none of its trials could succeed."""
    finished = replace(six, outputs=tmp_path).train("-m", "seed=0,1", "objective=fid", "sweep_name=two")
    assert finished.status == 1
    assert "two: 2 failed" in finished.stdout
    assert "objective: 'fid' is not measured with this model and evaluation" in finished.stdout


def test_a_value_of_a_wrong_type_ends_a_sweep_before_its_first_run(six, tmp_path):
    ours = replace(six, outputs=tmp_path)
    refused(ours.train("-m", "beta=0.5,-1,2"), "beta.value: -1 is not a finite number >= 0")
    refused(ours.train("-m", "trainer.epochs=1,two"), "trainer.epochs: 'two' is not a whole number")
    refused(ours.train("-m", "seed=0,1", "~optimizer.lr"), "~optimizer.lr", "needed")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_sweep_that_could_not_be_found_again_is_refused(six, tmp_path):
    ours = replace(six, outputs=tmp_path)
    refused(
        ours.train("-m", "seed=0", "sweep_name=aa,bb"),
        "sweep_name, output_root: ",
        "all runs of a sweep share one value",
    )
    refused(ours.train("-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}/elsewhere"), "hydra.sweep.dir: ")
    refused(ours.train("-m", "seed=range(0,0)"), "over no values")
    refused(ours.train("-m", "seed=0,1", "hydra.sweeper.max_batch_size=-1"), "max_batch_size: ", "-1")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_an_unknown_sweep_lists_those_there_are(six):
    refused(six.train("sweep=beta_latents"), "sweep: ", "did you mean beta_latent?", "vae_study")


@pytest.mark.parametrize("arguments", [SIX, ["trainer.epochs=2"]], ids=["sweep", "run"])
def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(arguments, six, tmp_path):
    ours = six.copied_to(tmp_path / "outputs")
    before = snapshot(ours.outputs)
    stdout = succeeded(ours.train(*arguments, "dry_run=true", "seed=0,1" if "-m" in arguments else "seed=1"))
    assert snapshot(ours.outputs) == before
    lines = [line.split() for line in stdout.splitlines() if "-z" in line]
    assert [line[0].rsplit("-", 1)[0] for line in lines if "complete" in line] == (
        [f"base-b{beta}-z{z}-s0" for beta in ("0.5", "1", "4") for z in (2, 3)] if "-m" in arguments else []
    )
    new = [line for line in lines if "new" in line]
    assert len(new) == (6 if "-m" in arguments else 1)
    assert all("s" in line for line in new), stdout  # seconds, known from runs that are there


def test_a_dry_run_of_what_was_never_trained_says_that_its_time_is_unknown(six, tmp_path):
    stdout = succeeded(replace(six, outputs=tmp_path).train("-m", "seed=0,1", "dry_run=true"))
    assert stdout.count("unknown") == 2 + 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_replaced_file_that_classifiers_start_from_makes_them_other_runs(tmp_path):
    """Which the same command's plan, kept from before, would miss."""
    command = ["--config-name", "classifier", "-m", "trainer.start=w.safetensors", "seed=0,1", "sweep_name=s"]
    command += ["data=fashion_mnist_small", f"output_root={tmp_path / 'outputs'}"]
    for content in (b"12345678", b"87654321", b"12345678"):
        (tmp_path / "w.safetensors").write_bytes(content)
        done = warmed().call("train.py", *command, cwd=tmp_path)
        refused(done, "2 of 2 runs failed")
        assert done.stdout.count("w.safetensors: not a readable checkpoint") == 2 * 2  # and in the summary
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "outputs"}
    names = sorted(path.name for path in (tmp_path / "outputs" / "s").glob("resnet18-*"))
    assert [name.rsplit("-", 1)[0] for name in names] == ["resnet18-s0"] * 2 + ["resnet18-s1"] * 2


def test_terminating_a_sweep_ends_all_of_it(six, tmp_path):
    """Unlike a job's own sys.exit, which ends the job."""
    ours = replace(six, outputs=tmp_path)
    process, output = start(ours, *SIX, "trainer.epochs=2000")
    until = time.monotonic() + 120
    while not list(tmp_path.glob("six/*/checkpoints/last.safetensors")):
        assert time.monotonic() < until
        assert alive(process)
        time.sleep(0.02)
    os.kill(process, signal.SIGTERM)
    assert warmed().finish(process, output).status == 143
    states = [json.loads(path.read_text())["state"] for path in tmp_path.glob("six/*/status.json")]
    assert states == ["interrupted"]


def test_what_was_asked_is_written_down_and_composed_once(six):
    planned = SweepDirectory(six.outputs / "six").planned()
    assert len(planned) == 6
    assert all((six.outputs / "six" / name / "results.json").exists() for name in planned)
    assert all("trainer.epochs=2" in plan.overrides for plan in planned.values())
