"""Whole processes, killed without warning: the same command ends with the same bits as an undisturbed run."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.faults.warmed import alive, warmed
from tests.idx import write_idx_dataset

KILLS = int(os.environ.get("FMVAE_KILLS", "5"))  # per case
COMPARED = (
    "results.json",
    "fid.json",
    "metrics.jsonl",
    "checkpoints/last.safetensors",
    "checkpoints/best.safetensors",
)

# 1003 - 103 = 900 training images in batches of 64: the last batch is short
SETTINGS = [
    "data.val_size=103",
    "data.batch_size=64",
    "data.download=false",
    "evaluation.fid.num_images=800",
    "evaluation.fid.features=[pixels]",
    "evaluation.iwae.num_images=50",
    "figures.every=4",
    "figures.only=[samples]",
    "device=cpu",
    "threads=1",
]
EPOCHS = 12
CASES = {
    "base": [f"trainer.epochs={EPOCHS}"],
    "batch_norm_warmup_cosine": ["model=beta", "beta=warmup", "scheduler=cosine", "trainer.epochs=8"],
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("idx")
    hashes = write_idx_dataset(root, 1003, 820)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in hashes.items())
    return [f"data.root={root}", f"data.sha256={{{digests}}}"]


def start(outputs: Path, dataset: list[str], overrides: list[str], prelude: str = "") -> tuple[int, Path]:
    """train.py in a process of its own, and where its output goes; ``prelude`` is run in it first."""
    arguments = [*SETTINGS, *dataset, *overrides, f"output_root={outputs}"]
    return warmed().start("train.py", *arguments, prelude=prelude)


def finish(started: tuple[int, Path], status: int = 0) -> str:
    done = warmed().finish(*started)
    assert done.status == status, done
    return done.stdout + done.stderr


def only_run(outputs: Path) -> Path:
    (run,) = [path.parent for path in outputs.glob("*/config.yaml")]
    return run


def differences(run: Path, undisturbed: Path) -> list[str]:
    return [name for name in COMPARED if (run / name).read_bytes() != (undisturbed / name).read_bytes()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dataset) -> Callable[[str], tuple[Path, float]]:
    """A case's run, left alone, with the seconds it took."""

    @cache
    def run(case: str) -> tuple[Path, float]:
        outputs = tmp_path_factory.mktemp("undisturbed")
        began = time.monotonic()
        finish(start(outputs, dataset, CASES[case]))
        return only_run(outputs), time.monotonic() - began

    return run


def last_epoch(run: Path) -> int:
    rows = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return len(rows)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_killed_at_random_moments_and_run_again_the_bits_are_the_same(case, tmp_path, dataset, undisturbed):
    reference, seconds = undisturbed(case)
    moments = random.Random()  # new ones each time; they are printed when the test fails
    for kill in range(KILLS):
        process, output = start(tmp_path, dataset, CASES[case])
        wait = moments.uniform(0.1, 0.6) * seconds  # each process has less to do
        time.sleep(wait)
        if alive(process):
            os.kill(process, signal.SIGKILL)
        status = warmed().finish(process, output).status
        print(f"kill {kill + 1} after {wait:.2f} s of {seconds:.2f} s, status {status}")
    finish(start(tmp_path, dataset, CASES[case]))
    run = only_run(tmp_path)
    assert not differences(run, reference)
    assert not list(run.rglob("*.tmp"))


def kill_after_epoch(outputs: Path, dataset: list[str], overrides: list[str], epoch: int) -> Path:
    """Train until ``epoch`` rows are written, then SIGKILL."""
    process, output = start(outputs, dataset, overrides)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and alive(process):
        found = list(outputs.glob("*/metrics.jsonl"))
        if found and len(found[0].read_text().splitlines()) >= epoch:
            break
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    warmed().finish(process, output)
    run = only_run(outputs)
    assert epoch <= last_epoch(run) < EPOCHS, "the kill came too late to test a resume"
    return run


@pytest.mark.slow
def test_negative_control_a_resume_that_shifts_the_shuffle_stream_differs(tmp_path, dataset, undisturbed):
    shifted = """
import fmvae.rng
unshifted = fmvae.rng.stream
def shifted(seed, role, epoch=0, device="cpu"):
    return unshifted(seed, role, epoch + (role == "shuffle"), device)
fmvae.rng.stream = shifted
"""
    run = kill_after_epoch(tmp_path, dataset, CASES["base"], 3)
    output = finish(start(tmp_path, dataset, CASES["base"], shifted))
    assert "resuming" in output
    assert "checkpoints/last.safetensors" in differences(run, undisturbed("base")[0])


@pytest.mark.slow
def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path, dataset):
    first = start(tmp_path, dataset, CASES["base"])
    while not list(tmp_path.glob("*/metrics.jsonl")):
        assert alive(first[0])
        time.sleep(0.02)
    refusal = finish(start(tmp_path, dataset, CASES["base"]), status=1)
    assert refusal.startswith("fmvae: error: ")
    assert f"held by process {first[0]} " in refusal
    assert len(refusal.splitlines()) == 1
    finish(first)
    assert "complete" in finish(start(tmp_path, dataset, CASES["base"]))


def test_watching_a_run_changes_no_trained_bit(tmp_path, dataset, undisturbed):
    """Figures at every epoch, sparse checkpoints and a progress bar: the same files, to the last byte."""
    watched = ["figures.every=1", "figures.num_samples=9", "trainer.checkpoint_every=7"]
    at_a_terminal = "import sys; sys.stderr.isatty = lambda: True"
    finish(start(tmp_path, dataset, [*CASES["base"], *watched], at_a_terminal))
    assert not differences(only_run(tmp_path), undisturbed("base")[0])


@pytest.mark.slow
def test_validating_less_often_changes_no_trained_bit(tmp_path, dataset, undisturbed):
    from fmvae.runs.checkpoint import load_checkpoint

    finish(start(tmp_path, dataset, [*CASES["base"], "trainer.validate_every=6"]))
    ours = load_checkpoint(only_run(tmp_path) / "checkpoints/last.safetensors").tensors
    theirs = load_checkpoint(undisturbed("base")[0] / "checkpoints/last.safetensors").tensors
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_polite_stop_has_its_own_status_and_resumes(number, status, tmp_path, dataset, undisturbed):
    process = start(tmp_path, dataset, CASES["base"])
    while not list(tmp_path.glob("*/metrics.jsonl")):
        assert alive(process[0])
        time.sleep(0.02)
    os.kill(process[0], number)
    output = finish(process, status)
    assert "Traceback" not in output
    run = only_run(tmp_path)
    status_file = (run / "status.json").read_text()
    assert '"interrupted"' in status_file
    assert "the same command continues" in status_file
    within = (run / "checkpoints/stopped.safetensors").exists()  # or it came between two epochs
    output = finish(start(tmp_path, dataset, CASES["base"]))
    assert bool(re.search(rf"resuming \S+ in epoch \d+ of {EPOCHS}, after step \d+", output)) == within
    assert not differences(run, undisturbed("base")[0])
