"""The programs as a user runs them: a process of its own, in some directory, with overrides.

``call`` starts Python cold, which takes 2 to 3 s more than ``Study``, which starts the programs warm
(``tests/faults/warmed.py``). ``tests/cli/test_cold.py`` checks that both say and write the same.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cli.finished import ROOT, Finished
from tests.faults.warmed import warmed


def call(*arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Finished:
    """Python with these arguments; ``environment`` is added to that of this process."""
    # results name the checkout's commit: a commit during the tests must not tell two runs apart
    env = {**os.environ, "GIT_DIR": os.devnull, "PYTHONPATH": str(ROOT), **(environment or {})}
    env.pop("HYDRA_FULL_ERROR", None)  # as in a user's shell
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def succeeded(finished: Finished) -> str:
    """Its standard output, given that all went well: status 0, and nothing to complain of."""
    assert finished.status == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


def refused(finished: Finished, *words: str) -> str:
    """Its one line, given that it was refused as we refuse: what is wrong and, after a semicolon, the way out."""
    assert finished.status == 1, finished
    assert "Traceback" not in finished.stdout + finished.stderr, finished.stderr
    (line,) = finished.stderr.splitlines()
    assert line.startswith("fmvae: error: ")
    problem, _, way_out = line.rpartition("; ")
    assert problem
    assert way_out
    for word in words:
        assert word in line, line
    return line


def snapshot(folder: Path) -> dict[str, str]:
    """Everything in a folder, with its content's digest; locks aside, which a refused run may take."""
    paths = [path for path in sorted(folder.rglob("*")) if ".locks" not in path.parts]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in paths
    }


QUICK = [
    "evaluation=fast",
    "figures.only=[]",  # drawing takes longer than all else that such a run does
    "figures.num_samples=4",
    "figures.num_reconstructions=2",
    "figures.gif=false",
    "figures.projector=0",
]


@dataclass(frozen=True)
class Study:
    """A small dataset and a folder of runs, and the programs to work on them.

    Attributes:
        figures: those that a run is to draw.
    """

    data: Path
    sha256: Mapping[str, str]
    outputs: Path
    figures: tuple[str, ...] = ()

    @property
    def quick(self) -> list[str]:
        """``QUICK``, with the figures."""
        return [
            *(s for s in QUICK if not s.startswith("figures.only=")),
            f"figures.only=[{','.join(self.figures)}]",
        ]

    @property
    def settings(self) -> list[str]:
        """What makes train.py use them, and be quick."""
        digests = ",".join(f"{name}:'{digest}'" for name, digest in self.sha256.items())
        return [
            f"data.root={self.data}",
            f"data.sha256={{{digests}}}",
            "data.download=false",
            "data.val_size=64",
            "trainer.epochs=1",
            *self.quick,
            f"output_root={self.outputs}",
        ]

    def train(self, *arguments: str, cwd: Path = ROOT) -> Finished:
        return warmed().call("train.py", *self.settings, *arguments, cwd=cwd)

    def evaluate(self, *arguments: str, cwd: Path = ROOT) -> Finished:
        return warmed().call("evaluate.py", *self.quick, *arguments, cwd=cwd)

    def run(self, pattern: str) -> Path:
        """The only run whose name fits."""
        (path,) = self.outputs.glob(pattern)
        return path

    def copied_to(self, folder: Path) -> "Study":
        """The same, in a folder where a test may do as it likes."""
        shutil.copytree(self.outputs, folder)
        return replace(self, outputs=folder)
