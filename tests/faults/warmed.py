"""The programs as processes that begin warm: forks of one that has imported everything, some 0.3 s each.

``python -m tests.faults.warmed`` is the process that is forked; it takes one request a line and answers in one.
A fork runs the program from its first line, with its own arguments, folder, output and exit status.
"""

import atexit
import gc
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tests.cli.finished import ROOT, Finished

NOBODY = 65534
LONGEST = 240.0  # seconds that a program may take


def serve() -> None:
    """Fork a process for each request that has arguments; tell how it ended to one that has its number."""
    for line in sys.stdin:
        request = json.loads(line)
        if "arguments" in request:
            answer = os.fork()
            if not answer:
                run(request)
        else:
            answer = ended(request["process"])
        print(answer, flush=True)
    os._exit(0)


def ended(process: int) -> int:
    """The exit status of a fork, waited for; that of one which takes too long is -9."""
    deadline = time.monotonic() + LONGEST
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            deadline += LONGEST
        time.sleep(0.005)


def run(request: dict[str, Any]) -> NoReturn:
    """Become the process of a request, to its end."""
    for number in (signal.SIGINT, signal.SIGHUP):  # ignored by what nohup or a shell's background starts
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, kind in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{request['output']}.{kind}", os.O_WRONLY | os.O_CREAT, 0o644), number)
    os.chdir(request["cwd"])
    if request["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"],) * 2)
    if request["unprivileged"] and not os.getuid():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    exec(request["prelude"], {})
    module, program = request["program"].startswith("fmvae."), request["program"]
    sys.argv[:] = [program if module else str(ROOT / program), *request["arguments"]]
    status: Any = 0
    try:
        if module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


class Warmed:
    """Starts forks of the warm process, and waits for them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fmvae-warmed-"))
        self.count = 0
        environment = {**os.environ, "GIT_DIR": os.devnull, "PYTHONPATH": str(ROOT)}
        environment.pop("HYDRA_FULL_ERROR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warmed"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **request: Any) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self,
        program: str,
        *arguments: str,
        cwd: Path = ROOT,
        prelude: str = "",
        unprivileged: bool = False,
        memory: int = 0,
    ) -> tuple[int, Path]:
        """Start ``train.py``, ``evaluate.py`` or a module; returns its process and where its output goes.

        Args:
            prelude: Python that the process runs first.
            unprivileged: whether it is to be no superuser's; of another's it is anyway.
            memory: bytes of address space that it may have; 0 for any.
        """
        self.count += 1
        output = self.folder / str(self.count)
        for kind in ("stdout", "stderr"):  # a process may be killed before it opens them
            output.with_suffix(f".{kind}").touch()
        process = self._ask(
            program=program,
            arguments=arguments,
            cwd=str(cwd),
            output=str(output),
            prelude=prelude,
            unprivileged=unprivileged,
            memory=memory,
        )
        return process, output

    def finish(self, process: int, output: Path) -> Finished:
        """Wait for what ``start`` returned."""
        status = self._ask(process=process)
        return Finished(status, *(output.with_suffix(f".{kind}").read_text() for kind in ("stdout", "stderr")))

    def call(self, program: str, *arguments: str, **settings: Any) -> Finished:
        """Start and finish."""
        return self.finish(*self.start(program, *arguments, **settings))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.folder)


def alive(process: int) -> bool:
    """Whether a process, not waited for yet, is still at work."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@cache
def warmed() -> Warmed:
    """The one of these tests."""
    server = Warmed()
    atexit.register(server.close)
    return server


USED = (
    "fmvae.experiments",
    "fmvae.measurement",
    "fmvae.report.sweep",
    "fmvae.sweeps.run",
    # what these import at the very end
    "matplotlib.pyplot",
    "tensorboard.plugins.hparams.plugin_data_pb2",
    "torch.utils.tensorboard.summary",
)


def warm_up() -> None:
    """Import what the programs import, and compose once, which has Hydra look for its plugins."""
    sys.path.append(str(ROOT / "fmvae" / "plugins"))
    for name in USED:
        import_module(name)
    from torch import nn, optim

    from fmvae.config import compose

    compose()
    optim.Adam(nn.Linear(1, 1).parameters(), fused=True).zero_grad()  # makes torch import its compiler
    gc.freeze()  # what forks share is not to be copied for looking at it


if __name__ == "__main__":
    warm_up()
    serve()
