"""TensorBoard over a folder, asked through its own HTTP API."""

import json
import time
from pathlib import Path
from typing import Any

from tensorboard import default, program
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_ingester
from werkzeug.test import Client

STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


class TensorBoard:
    """The application that ``tensorboard --logdir`` serves, without a socket.

    Args:
        fast: with the data server that TensorBoard uses where it is installed, else the loader in Python. They
            differ in what they make of a step that was written twice.
    """

    def __init__(self, logdir: Path, fast: bool = False):
        board = program.TensorBoard(default.get_plugins())
        board.configure(argv=["tensorboard", "--logdir", str(logdir), "--reload_interval", "1"])
        multiplexer = None
        if fast:
            self._ingester = board._start_subprocess_data_ingester()  # ends when this object does
        else:
            self._ingester = data_ingester.LocalDataIngester(board.flags)
            multiplexer = self._ingester.deprecated_multiplexer
            multiplexer.AddRunsFromDirectory(str(logdir))
            multiplexer.Reload()
        app = application.TensorBoardWSGIApp(
            board.flags, board.plugin_loaders, self._ingester.data_provider, None, multiplexer
        )
        self.client = Client(app)
        if fast:
            self._wait()

    def _wait(self) -> None:
        """Until the data server has read all there is, which it doesn't say: until its answers stay the same."""
        before, same = None, 0
        while same < 3:
            time.sleep(0.5)
            answer = self.runs(), self.tags("scalars"), self.tags("images"), self.sessions()
            before, same = answer, same + 1 if answer == before and answer[0] else 0

    def get(self, path: str, **arguments: Any) -> Any:
        response = self.client.get(f"/data/{path}", query_string=arguments)
        assert response.status_code == 200, (path, response.text)
        return response.json

    def post(self, path: str, **body: Any) -> Any:
        response = self.client.post(f"/data/{path}", data=json.dumps(body), content_type="application/json")
        assert response.status_code == 200, (path, response.text)
        return response.json

    def runs(self) -> list[str]:
        return sorted(self.get("runs"))

    def tags(self, plugin: str) -> dict[str, set[str]]:
        """By run."""
        return {run: set(tags) for run, tags in self.get(f"plugin/{plugin}/tags").items()}

    def scalar(self, run: str, tag: str) -> list[tuple[int, float]]:
        """Step and value of every point."""
        return [(step, value) for _, step, value in self.get("plugin/scalars/scalars", run=run, tag=tag)]

    def image_steps(self, run: str, tag: str) -> list[int]:
        return [picture["step"] for picture in self.get("plugin/images/images", run=run, tag=tag, sample=0)]

    def sessions(self) -> dict[str, dict[str, Any]]:
        """The rows of the HParams page by name: hparams, metrics by tag, status."""
        answer = self.post(
            "plugin/hparams/session_groups",
            experimentName="",
            allowedStatuses=STATUSES,
            colParams=[],
            startIndex=0,
            sliceSize=1000,
        )
        rows = {}
        for group in answer.get("sessionGroups", []):
            (session,) = group["sessions"]
            metrics = {metric["name"]["tag"]: metric.get("value", 0.0) for metric in group["metricValues"]}
            status = session.get("status", "STATUS_UNKNOWN")
            rows[group["name"]] = {"hparams": group["hparams"], "metrics": metrics, "status": status}
        return rows

    def repeated(self) -> list[tuple[str, str, list[int]]]:
        """Run, tag and steps of whatever shows a step twice."""
        scalars = [
            (run, tag, [step for step, _ in self.scalar(run, tag)])
            for run, tags in self.tags("scalars").items()
            for tag in tags
        ]
        images = [
            (run, tag, self.image_steps(run, tag)) for run, tags in self.tags("images").items() for tag in tags
        ]
        return [found for found in scalars + images if len(found[2]) != len(set(found[2]))]
