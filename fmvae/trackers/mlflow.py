"""Report runs to MLflow: a SQLite store beside the runs, or a server."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fmvae.config.project import install
from fmvae.errors import ConfigError
from fmvae.runs.tracking import State, Tracked, Tracker, now

if TYPE_CHECKING:
    from mlflow import MlflowClient

STORE, ARTIFACTS = "mlflow.db", "mlartifacts"  # in the folder of runs, without a uri
MOST_PARAMS, MOST_METRICS, LONGEST = 100, 1000, 6000  # of a request; signs of a value
STATUS = {"complete": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
# for this process, unless the user has set them: MLflow waits 120 s and asks 7 times again by default
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MLflow(Tracker):
    """A run is an MLflow run with parameters, metrics and artifacts; a sweep is the parent of its runs.

    Args:
        uri: of a server (``http://127.0.0.1:5000``) or a store. None: ``$MLFLOW_TRACKING_URI``, or else
            ``mlflow.db`` in the folder of runs, with artifacts in ``mlartifacts/`` beside it.
        experiment: the name of MLflow's experiment.

    Raises:
        ConfigError: MLflow is not installed, or the uri holds a password, which the run's config would show.
    """

    def __init__(self, uri: str | None = None, experiment: str = "fmvae"):
        if uri and urlsplit(uri).password:
            way_out = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_URI, instead"
            raise ConfigError("tracker.uri", "holds a password, which files of the run would show", way_out)
        if find_spec("mlflow") is None:
            raise ConfigError("tracker", "needs the library mlflow, not installed", install("mlflow"))
        self.uri, self.experiment = uri or os.environ.get("MLFLOW_TRACKING_URI"), experiment
        self._client: MlflowClient
        self._run = ""

    @property
    def place(self) -> str:
        shown = re.sub(r"//[^/@]*@", "//", self.uri) if self.uri else STORE  # without a password
        return f"mlflow {shown} {self.experiment}"

    def prepare(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow.entities  # noqa: F401

    def begin(self, run: Tracked) -> str:
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # a server that does not answer is told once, by us
        from mlflow import MlflowClient

        self._client = MlflowClient(self.uri or f"sqlite:///{(run.home / STORE).absolute()}")
        if run.id and self._alive(run.id):
            self._run = run.id
            self._client.update_run(run.id, status="RUNNING")
            return run.id
        tags = {"mlflow.parentRunId": run.parent} if run.parent else {}
        tags |= {"mlflow.source.name": "fmvae", "mlflow.source.type": "LOCAL", "fmvae.path": str(run.path)}
        made = self._client.create_run(self._experiment(run.home), run_name=run.name, tags=tags)
        self._run = made.info.run_id
        for part in _parts([*run.settings.items()], MOST_PARAMS):
            from mlflow.entities import Param

            self._client.log_batch(self._run, params=[Param(_name(k), str(v)[:LONGEST]) for k, v in part])
        return self._run

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        time = now()
        for part in _parts([*values.items()], MOST_METRICS):
            metrics = [Metric(_name(name), float(value), time, step) for name, value in part]
            self._client.log_batch(self._run, metrics=metrics)

    def picture(self, name: str, png: bytes, step: int) -> None:
        with tempfile.TemporaryDirectory(prefix="fmvae-") as folder:
            file = Path(folder) / f"{name}-{step:05d}.png"
            file.write_bytes(png)
            self._client.log_artifact(self._run, str(file), "training")

    def file(self, path: Path, name: str) -> None:
        folder, _, _ = name.rpartition("/")
        self._client.log_artifact(self._run, str(path), folder or None)

    def end(self, state: State) -> None:
        if state != "running":
            self._client.set_terminated(self._run, STATUS[state])

    def _alive(self, run: str) -> bool:
        """Return whether a run is there, and not in the bin."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False
            raise

    def _experiment(self, home: Path) -> str:
        from mlflow.exceptions import MlflowException

        if found := self._client.get_experiment_by_name(self.experiment):
            return found.experiment_id
        place = None if self.uri else (home / ARTIFACTS).absolute().as_uri()
        try:
            return self._client.create_experiment(self.experiment, place)
        except MlflowException:  # another process of another folder of runs was faster
            if found := self._client.get_experiment_by_name(self.experiment):
                return found.experiment_id
            raise


def _name(name: str) -> str:
    """Return a name that MLflow takes: of letters, digits and ``_-. :/``."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
