"""Report runs to Weights & Biases; offline by default, which needs no account."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmvae.config.project import install
from fmvae.errors import ConfigError
from fmvae.runs.tracking import State, Tracked, Tracker

MODES = ("offline", "online")
ENVIRONMENT = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}


class WandB(Tracker):
    """A run is a wandb run; the runs of a sweep are a group, and a run of the type ``sweep`` holds the report.

    Args:
        project: the project's name.
        entity: the user or team; None is the account's own.
        mode: ``offline`` writes into ``wandb/`` in the folder of runs, for ``wandb sync``; ``online`` needs an
            API key (``wandb login``).
        timeout: seconds to wait for the server at the start, > 0.

    Raises:
        ConfigError: wandb is not installed, or the mode is another one.
    """

    def __init__(
        self, project: str = "fmvae", entity: str | None = None, mode: str = "offline", timeout: float = 15
    ):
        if find_spec("wandb") is None:
            raise ConfigError("tracker", "needs the library wandb, not installed", install("wandb"))
        if mode not in MODES:
            raise ConfigError("tracker.mode", f"{mode!r} is not known", f"choose from {', '.join(MODES)}")
        self.project, self.entity, self.mode, self.timeout = project, entity, mode, timeout
        self._run: Any = None

    @property
    def place(self) -> str:
        return f"wandb {self.mode} {self.entity or ''}/{self.project}"

    def prepare(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import wandb  # noqa: F401

    def begin(self, run: Tracked) -> str:
        import wandb

        if self.mode == "online" and not wandb.Api().api_key:
            raise RuntimeError("no API key: run `wandb login`, or set WANDB_API_KEY")
        found = run.id or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=found,
            name=run.name,
            group=run.sweep,
            job_type="run" if run.settings else "sweep",
            config=dict(run.settings),
            dir=str(run.home),
            mode="offline" if self.mode == "offline" else "online",
            resume="allow",
            reinit="create_new",  # a stack has several at once
            save_code=False,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, init_timeout=self.timeout
            ),
        )
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("*", step_metric="epoch")
        return found

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "epoch": step})

    def picture(self, name: str, png: bytes, step: int) -> None:
        import wandb
        from PIL import Image

        self._run.log({f"training/{name}": wandb.Image(Image.open(io.BytesIO(png))), "epoch": step})

    def file(self, path: Path, name: str) -> None:
        self._run.save(str(path), base_path=str(path.parents[name.count("/")]), policy="now")

    def end(self, state: State) -> None:
        self._run.finish(exit_code=0 if state in ("complete", "running") else 1)
