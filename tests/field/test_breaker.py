"""More members of the kinds, that someone found who tried to break the program."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from fmvae.cli import main as cli
from fmvae.config import compose
from fmvae.errors import ConfigError, Terminated, interruption
from tests.cli.process import ROOT, refused, succeeded
from tests.faults.warmed import warmed

LINE = "# @package _global_\n"


@pytest.fixture
def train(study, tmp_path):
    """Train with an experiment of this text."""

    def run(text: str, *arguments: str):
        path = tmp_path / "conf" / "experiment" / "mine.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LINE + text)
        settings = [
            s for s in study.settings if not s.startswith(("model.", "trainer.epochs", "figures", "threads"))
        ]
        mine = [f"--config-dir={path.parents[1]}", "experiment=mine", *arguments]
        return warmed().call("train.py", *settings, *mine)

    return run


WORDS = {
    "optimizer: sgd\n": "optimizer",
    "scheduler: cosine\n": "scheduler",
    "likelihood: gaussian\n": "likelihood",
    "beta: 0.5\n": "beta",
    "model: conv\n": "model",
    "latent_dim: 10\n": "latent_dim",
}


@pytest.mark.parametrize(("text", "group"), WORDS.items(), ids=WORDS)
@pytest.mark.one_in(3)
def test_a_group_given_as_a_word_in_a_file(train, text, group):
    value = text.split(": ")[1].strip()
    for more in ([], ["dry_run=true"], ["-m", "seed=0,1"]):
        refused(train(text, *more), f"{group}: ", "not a group of keys", f"- override /{group}: {value}")


def test_a_group_chosen_as_that_line_says_is_read(train):
    """The control: the way out works when it is typed."""
    text = "defaults:\n  - override /optimizer: sgd\n"
    assert "1 run" in succeeded(train(text, "dry_run=true"))


FILES = {
    "trainer.epochs: 3\n": ["trainer.epochs: ", "trainer: {epochs: ...}"],
    "experiment: foo\n": ["experiment: ", "there is no such key"],
    "optimizer:\n  _target_: torch.optim.LBFGS\n": ["optimizer.weight_decay: "],
    "model:\n  latent_dim: 7\n": ["model.latent_dim: ", "7", "latent_dim.value, 2", "latent_dim=7"],
    "hydra:\n  sweeper:\n    params:\n      seed: 1,2\n": ["hydra.sweeper.params: ", "seed", "-m", "MULTIRUN"],
    "model:\n  image_shape: [1, 14, 14]\n": ["model.image_shape: ", "[1, 14, 14]", "[1, 28, 28]"],
}


@pytest.mark.parametrize(("text", "words"), FILES.items(), ids=FILES)
@pytest.mark.one_in(3)
def test_what_a_file_says_in_another_way_than_it_is_read(train, text, words):
    line = refused(train(text), *words)
    assert "first line" not in line
    assert f"did you mean {words[0][:-2]}?" not in line


def test_shorthand_in_a_sweeps_file(train):
    params = "{beta: '1,2', latent_dim: '2,3'}"
    text = f"sweep_name: s\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {params}\n"
    assert "4 runs" in succeeded(train(text, "dry_run=true"))


TYPED = {
    "-m beta=interval(0.5,4)": ["interval", "hydra/sweeper=optuna"],
    "beta=−1": ["write it as beta=-1"],
    "model=“conv”": ['write it as model="conv"'],
    "model=conv,": ["write it as model=conv"],
    "model.latent_dim=5": ["model.latent_dim: ", "5", "latent_dim=5"],
}


@pytest.mark.parametrize(("typed", "words"), TYPED.items(), ids=TYPED)
def test_what_is_typed_in_another_way_than_it_is_read(study, typed, words):
    refused(warmed().call("train.py", *study.settings, *typed.split()), *words)


@pytest.mark.parametrize("argument", ["~experiment", "~sweep"])
def test_a_choice_that_nobody_made_can_be_removed(study, argument):
    assert "1 run" in succeeded(warmed().call("train.py", *study.settings, argument, "dry_run=true"))


def test_a_path_that_is_no_utf_8_is_refused_before_anything_is_written(study, tmp_path):
    done = subprocess.run(
        [sys.executable.encode(), b"train.py", *(s.encode() for s in study.settings), b"output_root=/tmp/jos\xe9"],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"fmvae: error: output_root: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", ["dry_run=true", "--help", "-m seed=0,1 sweep_name=s", "-m seed=0,1 dry_run=true"]
)
@pytest.mark.one_in(4)
def test_a_reader_who_has_read_enough(study, arguments):
    settings = " ".join(f'"{s}"' for s in study.settings)
    command = f"'{sys.executable}' train.py {settings} {arguments} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.slow
def test_a_sweep_whose_output_is_full(study):
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "train.py", *study.settings, "-m", "seed=0,1", "sweep_name=s"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(study.outputs.glob("s/base-*/results.json"))) == 2


# --- interruptions ------------------------------------------------------------------------------------------


def interrupted_while_cleaning_up(stop: BaseException) -> Exception:
    """As a library's, whose clean-up meets what was half done."""
    try:
        try:
            raise stop
        finally:
            None._invalidate_flags_cache()  # type: ignore[attr-defined]
    except Exception as error:
        return error


def test_an_error_that_comes_of_an_interruption_is_one():
    for stop in (Terminated(143), KeyboardInterrupt()):
        assert interruption(interrupted_while_cleaning_up(stop)) is stop
        assert interruption(stop) is stop
    assert interruption(ValueError()) is None
    assert interruption(None) is None
    try:  # as when an error is taken out of what it was wrapped in
        try:
            raise ValueError
        except ValueError as inner:
            wrapper = RuntimeError()
            wrapper.__cause__ = inner
            raise wrapper from inner
    except RuntimeError as error:
        ring = error.__cause__
        assert ring
        ring.__context__ = error
        assert interruption(ring) is None


@pytest.mark.parametrize("swallowed", [False, True], ids=["failing clean-up", "swallowed"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_composing_ends_as_a_signal(study, swallowed, number, status):
    """Whatever the interrupted code makes of it."""
    what = "pass" if swallowed else "raise ConfigCompositionException('half done') from None"
    prelude = f"""
import os
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import ConfigCompositionException
load = ConfigLoaderImpl.load_configuration
def loading(self, *arguments, **settings):
    try:
        os.kill(os.getpid(), {int(number)})
    except SystemExit:
        {what}
    return load(self, *arguments, **settings)
ConfigLoaderImpl.load_configuration = loading
"""
    arguments = ["seed=1", "trainer.epochs=0"]  # an error that comes after a swallowed one
    finished = warmed().call("train.py", *study.settings, *arguments, prelude=prelude)
    assert (finished.status, finished.stderr) == (status, "interrupted; repeat the command to continue\n")
    refused(warmed().call("train.py", *study.settings, *arguments), "trainer.epochs")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_python_ends_is_heeded_without_a_word(study, number):
    """All is done by then; an exception would be printed by whoever cleans up."""
    prelude = f"import atexit, os; atexit.register(lambda: [os.kill(os.getpid(), {int(number)}), [0] * 10**6])"
    done = warmed().call("train.py", *study.settings, "dry_run=true", prelude=prelude)
    assert (done.status, done.stderr) == (128 + number, "")
    prelude += "; import fmvae.cli.main as m; m._end_quietly = lambda: None"  # the control
    assert (
        "Exception ignored" in warmed().call("train.py", *study.settings, "dry_run=true", prelude=prelude).stderr
    )


def test_of_several_processes_none_draws_a_bar(monkeypatch):
    def progress(launcher: str, mode: RunMode) -> bool:
        hydra_config = SimpleNamespace(
            mode=mode,
            launcher=SimpleNamespace(_target_=launcher),
            sweeper=SimpleNamespace(_target_="hydra_plugins.fmvae_sweeper.FmvaeSweeper"),
            job=SimpleNamespace(num=0),
        )
        config = {"device": "cpu", "trainer": {"progress": True}}
        monkeypatch.setattr(HydraConfig, "get", lambda: hydra_config)
        monkeypatch.setattr(cli, "prepare", lambda *_: (config, []))
        return cli.job(lambda config, overrides: config["trainer"]["progress"], None)  # type: ignore[arg-type]

    assert progress("hydra._internal.core_plugins.basic_launcher.BasicLauncher", RunMode.MULTIRUN)
    assert progress("x.JoblibLauncher", RunMode.RUN)
    assert not progress("x.JoblibLauncher", RunMode.MULTIRUN)


def test_a_models_latents_are_those_that_its_run_is_named_by():
    assert compose(["latent_dim=5"])["model"]["latent_dim"] == 5
    with pytest.raises(ConfigError, match="latent_dim=5"):
        compose(["model.latent_dim=5"])
    assert compose(["model.latent_dim=5", "latent_dim=5"])["model"]["latent_dim"] == 5
