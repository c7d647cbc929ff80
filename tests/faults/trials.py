"""Trials: a run of train.py that something happens to, what it leaves, and the same command after it.

``tests/faults`` makes a few of each kind, ``python -m tests.faults.campaign`` (``make test-crash``) all of them.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fmvae.common.stop import NUMBERS
from fmvae.config.stored import read_config
from fmvae.errors import FmvaeError
from fmvae.runs.checkpoint import load_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import TEMPORARY, read_record
from tests.cli.process import Finished
from tests.cli.test_exactness import COMPARED
from tests.faults.disk import prelude
from tests.faults.power import Loss, cut, read_journal, write
from tests.faults.warmed import Warmed, alive, warmed
from tests.idx import write_idx_dataset

# a short last batch, batch norm, labels, a warm-up and a learning rate that falls
CASES = {
    "base": ["model.hidden_dim=16"],
    "batch norm": ["model=beta", "beta=warmup", "scheduler=cosine"],
    "conditional": ["model=conditional", "model.hidden_dim=16", "scheduler=plateau"],
    "network": [  # of the loss, with an optimizer of its own; weights of the prior and of the likelihood
        *("model.hidden_dim=16", "loss=factor_vae", "loss.width=16", "loss.depth=2"),
        *("prior=mixture", "prior.num_components=5", "likelihood=gaussian_learned", "likelihood.method=trained"),
    ],
    "draws": [  # several for each image, and black and white images drawn anew in each epoch
        *("model.hidden_dim=16", "loss=iwae", "loss.num_samples=2"),
        *("prior=vamp", "prior.num_components=5", "data.binarize=dynamic"),
    ],
}
SETTINGS = [
    "data.val_size=70",
    "data.batch_size=64",
    "data.download=false",
    "evaluation=fast",
    "evaluation.fid.num_images=800",
    "evaluation.fid.features=[pixels]",
    "evaluation.accuracy.num_per_class=0",
    "figures=none",
    "device=cpu",
    "threads=1",
    "trainer.epochs=3",
]
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # also in a shell's background
ONE_LINE = re.compile(r"fmvae: error: [^\n]+: [^\n]+; [^\n]+\n")


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        status: of the process that it happened to; negative for a signal.
        broken: what a reader would have found half written, or lost, after it.
        said: what that process said in another form than one line.
        differences: files that differ from the undisturbed run's, once the same command has finished.
    """

    status: int
    broken: list[str] = field(default_factory=list)
    said: str = ""
    differences: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.broken or self.said or self.differences)


class Bench:
    """A small dataset (as few images as give a distance in pixels), undisturbed runs, and a folder for trials."""

    def __init__(self, folder: Path, server: Warmed | None = None):
        folder.mkdir(exist_ok=True)
        self.folder, self.warmed = folder, server or warmed()
        self.journals: dict[str, tuple[Path, list[list[Any]]]] = {}
        digests = write_idx_dataset(folder / "data", 890, 800)
        named = ",".join(f"{name}:'{digest}'" for name, digest in digests.items())
        self.data = [f"data.root={folder / 'data'}", f"data.sha256={{{named}}}"]
        self.references: dict[str, tuple[Path, float]] = {}

    def command(self, case: str, outputs: Path) -> list[str]:
        return [*SETTINGS, *CASES[case], *self.data, f"output_root={outputs}"]

    def reference(self, case: str) -> tuple[Path, float]:
        """The undisturbed run, and the seconds that it took."""
        if case not in self.references:
            outputs = self.folder / "undisturbed" / case.replace(" ", "_")
            if not self.references:
                self.call(case, self.folder / "first", "")  # what is only slow once
                shutil.rmtree(self.folder / "first")
            began = time.monotonic()
            done = self.call(case, outputs, "")
            assert done.status == 0, done
            self.references[case] = run_in(outputs), time.monotonic() - began
        return self.references[case]

    def call(self, case: str, outputs: Path, before: str) -> Finished:
        return self.warmed.call("train.py", *self.command(case, outputs), prelude=HEED + before)

    def outputs(self) -> Path:
        """A new folder for a trial's."""
        return Path(mkdtemp(dir=self.folder)) / "outputs"

    def conclude(self, case: str, outputs: Path, done: Finished) -> Outcome:
        """Look at what a disturbed process left, and give the same command again."""
        left = list(broken(outputs))
        quiet = done.status in (0, -signal.SIGKILL) or (done.status == 1 and ONE_LINE.fullmatch(done.stderr))
        said = "" if quiet else f"{done.status} {done.stderr}"
        again = self.call(case, outputs, "")
        differences = [f"status {again.status}: {again.stderr}"] if again.status else self.differing(case, outputs)
        if not (left or said or differences):
            shutil.rmtree(outputs.parent)
        return Outcome(done.status, left, said, differences)

    def differing(self, case: str, outputs: Path) -> list[str]:
        """Files that differ from the undisturbed run's, and those that should not be there any more."""
        run, (reference, _) = run_in(outputs), self.reference(case)
        differ = [name for name in COMPARED if (run / name).read_bytes() != (reference / name).read_bytes()]
        differ += [path.name for path in outputs.rglob(f"*{TEMPORARY}")]
        return differ + [f"{tag} is shown twice at a step" for tag in shown_twice(run)]

    def journal(self, case: str) -> tuple[Path, list[list[Any]]]:
        """The folder that an undisturbed run made, and its calls on the disk."""
        if case not in self.journals:
            outputs, journal = self.outputs(), self.folder / "calls"
            done = self.call(case, outputs, prelude(outputs, journal=str(journal)))
            assert done.status == 0, done
            self.journals[case] = outputs, read_journal(journal)
        return self.journals[case]

    # --- what can happen ------------------------------------------------------------------------------------

    def fail(self, case: str, at: int, how: str, persistent: bool = False) -> Outcome | None:
        """The disk fails, or the process ends, at its n-th call on the disk; None if it made fewer."""
        outputs, journal = self.outputs(), self.folder / "reached"
        settings = {"at": at, "how": how, "persistent": persistent, "journal": str(journal)}
        done = self.call(case, outputs, prelude(outputs, **settings))
        if journal.stat().st_size == 0:
            shutil.rmtree(outputs.parent)
            return None
        return self.conclude(case, outputs, done)

    def cut(self, case: str, after: int, loss: Loss, chance: random.Random) -> Outcome:
        """The power fails after so many calls of an undisturbed run; the command is given again."""
        outputs, calls = self.journal(case)
        shutil.rmtree(outputs, ignore_errors=True)
        write(cut(calls[:after], outputs, loss, chance), outputs, outputs)
        left = list(broken(outputs))
        again = self.call(case, outputs, "")
        return Outcome(0, left, "", [again.stderr] if again.status else self.differing(case, outputs))

    def kill(self, case: str, moments: list[float]) -> Outcome:
        """SIGKILL at each of these shares of the time that the run takes, the same command in between."""
        return self._signalled(case, [(moment, [signal.SIGKILL]) for moment in moments])

    def stop(self, case: str, moment: float, numbers: list[signal.Signals]) -> Outcome:
        """Signals, one after another, at a share of the time that the run takes."""
        return self._signalled(case, [(moment, numbers)])

    def _signalled(self, case: str, events: list[tuple[float, list[signal.Signals]]]) -> Outcome:
        outputs, (_, seconds) = self.outputs(), self.reference(case)
        done = Finished(0, "", "")
        left: list[str] = []
        for moment, numbers in events:
            process, output = self.warmed.start("train.py", *self.command(case, outputs), prelude=HEED)
            time.sleep(moment * seconds)
            for number in numbers:
                if alive(process):
                    os.kill(process, number)
            done = self.warmed.finish(process, output)
            left += broken(outputs)
        polite = {-signal.SIGKILL, 0, *(128 + number for number in NUMBERS)}
        said = "" if done.status in polite and "Traceback" not in done.stderr else f"{done.status} {done.stderr}"
        outcome = self.conclude(case, outputs, Finished(0, "", ""))
        return Outcome(done.status, left + outcome.broken, said, outcome.differences)


def shown_twice(run: Path) -> list[str]:
    """Tags of which TensorBoard shows two values at a step."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each kill
    events = EventAccumulator(str(run), size_guidance={SCALARS: 0})
    events.Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return [tag for tag, found in steps.items() if len(set(found)) < len(found)]


def run_in(outputs: Path) -> Path:
    """The only run in a folder."""
    (run,) = [path.parent for path in outputs.glob("*/config.yaml")]
    return run


def broken(outputs: Path) -> Iterator[str]:
    """What a reader would find half written below a folder, or lost though it had been there."""
    for path in sorted(outputs.glob("*/**/*")):
        if not path.is_file() or path.name.endswith((TEMPORARY, ".lock")):
            continue
        try:
            if path.suffix == ".safetensors":
                load_checkpoint(path)
            elif path.name in ("results.json", "fid.json", "index.json"):
                read_record(path)
            elif path.name in ("status.json", "timing.json"):
                json.loads(path.read_bytes())
            elif path.name == "metrics.jsonl":
                assert path.read_bytes().endswith(b"\n")
                [json.loads(line) for line in path.read_bytes().splitlines()]
            elif path.name == "config.yaml":
                read_config(path)
        except (FmvaeError, ValueError, AssertionError) as error:
            yield f"{path.name}: {error}"
    for config in outputs.glob("*/config.yaml"):
        run = RunDirectory(config.parent)
        epoch = run.read_status().get("epoch") or 0
        there = [load_checkpoint(path).meta["epoch"] for path in (run.last, run.previous) if path.exists()]
        if epoch and epoch > max(there, default=0):
            yield f"no checkpoint of epoch {epoch}, though status.json says so"
