"""Standard streams as they are: of any encoding, closed, piped, or a terminal with a bar on it."""

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from fmvae.common import streams
from fmvae.common.streams import HANDLER, is_terminal
from tests.cli.process import ROOT, call, succeeded
from tests.faults.warmed import warmed

ENCODINGS = ["ascii", "cp1252", "latin-1", "cp437"]


def started(*arguments: str, closed: tuple[int, ...] = (), **environment: str) -> subprocess.CompletedProcess:
    """Python with these arguments, and some of its standard streams closed, as by ``2>&-`` in a shell."""
    env = {**os.environ, "GIT_DIR": os.devnull, "PYTHONPATH": str(ROOT), **environment}
    redirected = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, timeout=300)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.one_in(4)
def test_a_sweep_ends_well_whatever_its_output_can_show(study, encoding):
    train = [str(ROOT / "train.py"), *study.settings, "-m", "seed=0,1", "sweep_name=s"]
    for _ in range(2):  # trained, and shown again
        done = started(*train, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b""), done
        said = done.stdout.decode(encoding)
        assert "2 complete" in said
        assert re.search(r"[-−]ELBO \d", said)  # a sign of like meaning, and no question mark


def test_a_minus_that_cannot_be_shown_is_what_broke_it(tmp_path):
    """The control: without the handler the same text is an error, and with it a hyphen."""
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.raises(UnicodeEncodeError):
        text.write("−ELBO")
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding="ascii", errors=HANDLER)
    text.write("−ELBO 1–2 ± σ → é ☃ \udce9")
    text.flush()
    assert raw.getvalue() == b"-ELBO 1-2 +- sigma -> e ? ?"


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)])
@pytest.mark.one_in(4)
def test_a_run_does_not_need_its_streams(study, closed):
    done = started(str(ROOT / "train.py"), *study.settings, closed=closed)
    assert done.returncode == 0, done
    (run,) = study.outputs.glob("base-*")
    assert (run / "results.json").exists()
    if 1 not in closed:
        assert b"results" in done.stdout


def test_a_closed_streams_number_goes_to_no_file(tmp_path):
    """C libraries write to number 2, whatever file that is."""
    code = (
        "{}import os; from pathlib import Path\n"
        f"file = open({str(tmp_path / 'weights')!r}, 'wb'); file.write(b'weights'); file.flush()\n"
        "os.write(2, b'a warning of a library')"
    )
    started("-c", code.format("from fmvae.common.streams import set_up; set_up(); "), closed=(2,))
    assert (tmp_path / "weights").read_bytes() == b"weights"
    started("-c", code.format(""), closed=(2,))
    assert (tmp_path / "weights").read_bytes() != b"weights"  # as it would be


@pytest.mark.parametrize("module", ["fmvae.report", "fmvae.verify", "fmvae.data"])
@pytest.mark.one_in(3)
def test_the_modules_own_commands_set_their_streams_up(study, module):
    succeeded(study.train())
    (run,) = study.outputs.glob("base-*")
    arguments = {
        "fmvae.report": ["status", str(study.outputs)],
        "fmvae.verify": ["--files", str(run)],
        "fmvae.data": ["stats", "--root", "/nowhere/é−"],
    }[module]
    for closed in ((), (2,)):
        done = started("-m", module, *arguments, closed=closed, PYTHONIOENCODING="ascii")
        assert done.returncode == (module == "fmvae.data"), done
        assert b"Traceback" not in done.stderr
    if module == "fmvae.data":
        assert b"e-" in started("-m", module, *arguments, PYTHONIOENCODING="ascii").stderr


def test_what_is_no_terminal():
    class Mute:
        pass

    closed = io.StringIO()
    closed.close()
    assert not any(map(is_terminal, (None, Mute(), closed, io.StringIO())))
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal:
        assert is_terminal(terminal)
    os.close(parent)


def test_setting_up_twice_changes_nothing(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    streams.set_up()
    streams.set_up()
    assert sys.stdout is stream
    assert stream.errors == HANDLER


# --- terminals ----------------------------------------------------------------------------------------------


class OnTerminal:
    """A program whose output is a terminal's, and what that has shown so far."""

    def __init__(self, *arguments: str):
        self.parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 40, 200, 0, 0))
        env = {**os.environ, "GIT_DIR": os.devnull, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=env, stdin=child, stdout=child, stderr=child
        )
        os.close(child)
        self.shown = ""

    def read(self, until: str = "", seconds: float = 120) -> bool:
        """Read until a text was shown, or the program ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if until and re.search(until, self.shown):
                return True
            if not select.select([self.parent], [], [], 0.1)[0]:
                continue
            try:
                content = os.read(self.parent, 65536)
            except OSError:  # it ended
                break
            if not content:
                break
            self.shown += content.decode(errors="replace")
        self.process.wait(30)
        return bool(until and re.search(until, self.shown))

    def lines(self) -> list[str]:
        """What is seen on the screen: a carriage return begins the line anew, and what is longer shows behind."""
        seen = []
        for line in self.shown.split("\n"):
            screen = ""
            for part in line.split("\r"):
                screen = part + screen[len(part) :]
            seen.append(screen.rstrip())
        return seen


LONG = ["trainer.epochs=500", "trainer.progress=true"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
@pytest.mark.one_in(2)
def test_the_last_line_stands_alone_below_a_bar(study, number, status):
    program = OnTerminal(str(ROOT / "train.py"), *study.settings, *LONG)
    assert program.read(r"epoch 2/500")
    program.process.send_signal(number)
    program.read()
    assert program.process.returncode == status, program.shown
    assert "interrupted; repeat the command to continue" in program.lines(), program.lines()[-5:]


@pytest.mark.slow
def test_a_run_that_fails_says_so_on_a_line_of_its_own(study):
    program = OnTerminal(str(ROOT / "train.py"), *study.settings, *LONG, "optimizer.lr=1e30")
    program.read()
    assert program.process.returncode == 1
    assert [line for line in program.lines() if line.startswith("fmvae: error: ")], program.lines()[-5:]
    assert not [line for line in program.lines() if re.search(r".fmvae: error", line)]


@pytest.mark.slow
def test_epochs_are_lines_above_the_bar(study):
    program = OnTerminal(str(ROOT / "train.py"), *study.settings, "trainer.progress=true", "trainer.epochs=12")
    program.read()
    assert program.process.returncode == 0
    epochs = [line for line in program.lines() if re.match(r"epoch +\d+/12 \| train", line)]
    assert len(epochs) == 12, program.lines()


@pytest.mark.parametrize(
    ("patch", "module"),
    [
        ("import fmvae.measurement.recompute as m; m.recompute = slow", "fmvae.verify"),
        ("import fmvae.report.sweep as m; m.write_report = slow", "fmvae.report"),
        ("import fmvae.data.sources as m; m.load_dataset = slow", "fmvae.data"),
    ],
    ids=["verify", "report", "data"],
)
@pytest.mark.slow
def test_ctrl_c_in_a_modules_command_is_one_line(study, tmp_path, patch, module):
    succeeded(warmed().call("train.py", *study.settings))
    (run,) = study.outputs.glob("base-*")
    code = (
        "import runpy, sys, time\n"
        "def slow(*a, **b):\n    print('begun', flush=True)\n    time.sleep(60)\n"
        f"{patch}\nrunpy.run_module({module!r}, run_name='__main__')"
    )
    arguments = ["fetch"] if module == "fmvae.data" else [str(run.parent if module == "fmvae.report" else run)]
    program = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout
    assert program.stdout.readline() == "begun\n"
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert (program.returncode, said) == (130, "interrupted\n")


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
@pytest.mark.slow
def test_a_reader_who_has_read_enough_changes_no_status(study, damaged):
    succeeded(warmed().call("train.py", *study.settings, "-m", "seed=0,1", "sweep_name=s"))
    if damaged:
        for file in study.outputs.glob("s/base-*/checkpoints/last.safetensors"):
            file.write_bytes(b"damaged")
    for module, status in (("fmvae.report status", 0), ("fmvae.verify --files", int(damaged))):
        command = f"'{sys.executable}' -m {module} '{study.outputs / 's'}' | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.stdout == f"{status}\n"
        assert "Broken pipe" not in done.stderr
        assert "Traceback" not in done.stderr


def test_a_last_line_needs_no_stream(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    streams.complain("nobody reads this")


def test_nothing_reads_a_file_in_the_encoding_of_the_place():
    """The linter's rule that asks for an encoding is on for the whole package."""
    done = call("-m", "ruff", "check", "--select", "PLW1514", "--preview", "fmvae", "train.py", "evaluate.py")
    assert done.status == 0, done.stdout
    assert "PLW1514" in Path(ROOT, "pyproject.toml").read_text(encoding="utf-8")
