"""Sweeps through launchers and a search: the bits of one run after another, placed and continued as told."""

import importlib.util
import json
import os
import signal
import threading
import time
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins

from fmvae.common.torch_setup import choose_device
from fmvae.config import compose as composed
from fmvae.config.project import PROJECT_ROOT
from fmvae.errors import ConfigError, ObjectiveError, RunError
from fmvae.experiments import objective
from fmvae.experiments.search_target import check_objective
from tests.cli.process import Study, call, refused
from tests.cli.test_exactness import COMPARED
from tests.faults.warmed import warmed

LAUNCHERS = {"joblib": "joblib", "submitit_local": "submitit", "slurm": "submitit", "ray": "ray"}
QUICK = ["sweep_name=swept", "model.hidden_dim=16"]
# a file is missing if nothing of it was measured
BITS = [name for name in COMPARED if name != "fid.json"]


def needs(plugin: str, kind: str = "launcher") -> Any:
    found = importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}_{kind}") is not None
    return pytest.mark.skipif(not found, reason=f"hydra-{plugin}-{kind} is not installed")


def launched(study: Study, folder: Path, *arguments: str) -> dict[str, dict[str, bytes]]:
    """The bits of a sweep's complete runs, by name; train.py is called in another directory.

    With a launcher it begins cold, with two threads and an empty PYTHONPATH, as its workers inherit them.
    """
    settings = [s for s in study.settings if not s.startswith("output_root=")]
    command = ["-m", *settings, *QUICK, f"output_root={folder}", *arguments]
    if any(argument.startswith("hydra/launcher=") for argument in arguments):
        environment = {"PYTHONPATH": "", "OMP_NUM_THREADS": "2"}
        done = call(str(PROJECT_ROOT / "train.py"), *command, cwd=folder.parent, environment=environment)
    else:
        done = warmed().call("train.py", *command, cwd=folder.parent)
    assert done.status == 0, done
    runs = [results.parent for results in (folder / "swept").glob("base-*/results.json")]
    return {run.name: {bit: (run / bit).read_bytes() for bit in BITS} for run in runs}


@pytest.fixture(scope="module")
def sequence(tmp_path_factory) -> Path:
    """Where the runs of ``in_sequence`` are."""
    return tmp_path_factory.mktemp("sequence")


@pytest.fixture(scope="module")
def in_sequence(untrained, sequence) -> dict[str, dict[str, bytes]]:
    return launched(untrained, sequence, "seed=0,1", "threads=1")


@pytest.mark.parametrize(
    ("launcher", "arguments"),
    [
        pytest.param("joblib", ["hydra.launcher.n_jobs=2"], marks=needs("joblib")),
        pytest.param("submitit_local", [], marks=needs("submitit")),
        pytest.param("ray", ["hydra.launcher.ray.init.num_cpus=2"], marks=needs("ray")),
    ],
)
def test_a_launcher_gives_the_bits_of_one_run_after_another(launcher, arguments, untrained, in_sequence, tmp_path):
    """Each with one thread, which the launcher's preset sees to."""
    assert launched(untrained, tmp_path, "seed=0,1", f"hydra/launcher={launcher}", *arguments) == in_sequence
    assert len(in_sequence) == 2


def test_negative_control_another_seed_or_number_of_threads_is_noticed(untrained, in_sequence, tmp_path):
    others = launched(untrained, tmp_path, "seed=0,2", "threads=2")
    common = others.keys() & in_sequence.keys()
    assert len(common) == 1
    assert all(others[name]["results.json"] != in_sequence[name]["results.json"] for name in common)


@needs("joblib")
@pytest.mark.slow
def test_the_same_sweep_again_trains_nothing(untrained, tmp_path):
    arguments = ["seed=0", "hydra/launcher=joblib"]
    before = launched(untrained, tmp_path, *arguments)
    (checkpoint,) = (tmp_path / "swept").glob("base-*/checkpoints/last.safetensors")
    written = checkpoint.stat().st_mtime_ns
    assert launched(untrained, tmp_path, *arguments) == before
    assert checkpoint.stat().st_mtime_ns == written


@needs("joblib")
@pytest.mark.slow
def test_a_worker_that_is_killed_stops_no_run(untrained, in_sequence, tmp_path):
    """joblib ends the other worker with it; both runs go on, each alone, and give the bits of undisturbed ones."""
    arguments = ["seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    arguments += ["figures.only=null", "figures.num_samples=64"]  # drawing, the runs take a few seconds more
    killed = []

    def running() -> list[dict[str, Any]]:
        states = [json.loads(path.read_text()) for path in tmp_path.glob("swept/base-*/status.json")]
        return [state for state in states if state["state"] == "running"]

    def kill_one_of_two() -> None:
        """Held until the other runs too: of one that ended alone it is known that it is to blame."""
        held: list[int] = []
        for _ in range(3000):
            begun = [state["pid"] for state in running() if state.get("epoch")]
            if begun and not held:
                os.kill(begun[0], signal.SIGSTOP)
                held.append(begun[0])
            if held and len(running()) == 2:
                os.kill(held[0], signal.SIGKILL)
                killed.extend(held)
                return
            time.sleep(0.02)
        for pid in held:  # or the sweep would wait for it for ever
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=kill_one_of_two)
    thread.start()
    assert launched(untrained, tmp_path, *arguments) == in_sequence
    thread.join()
    assert killed, "the two never ran at once"


# --- presets ------------------------------------------------------------------------------------------------


def hydra_config(*overrides: str) -> Any:
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        return compose("train", [*overrides, "hydra.job.name=train"], return_hydra_config=True).hydra


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_preset_is_ours_and_gives_each_job_one_thread(launcher):
    config = hydra_config(f"hydra/launcher={launcher}")
    file = yaml.safe_load((PROJECT_ROOT / f"conf/hydra/launcher/{launcher}.yaml").read_text())
    assert set(config.launcher) == set(file["hydra"]["launcher"])
    assert config.job.env_set.OMP_NUM_THREADS == "1"


def test_slurm_asks_for_what_its_keys_say():
    config = hydra_config("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=4").launcher
    assert {"timeout_min", "mem_gb", "gpus_per_node", "partition", "max_num_timeout"} <= set(config)
    assert config.additional_parameters.requeue is True
    assert (
        hydra_config("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=4").job.env_set.OMP_NUM_THREADS == "4"
    )


@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [pytest.param(name, plugin, marks=needs(plugin)) for name, plugin in LAUNCHERS.items()],
)
def test_a_presets_keys_are_the_plugins_own(launcher, plugin):
    """So that a new version of a plugin which renames one is noticed."""
    own = hydra_config(f"hydra/launcher={launcher}").launcher
    target = own._target_
    Plugins.instance()
    assert target in Plugins.instance().class_name_to_class
    module = importlib.import_module(
        f"hydra_plugins.hydra_{plugin}_launcher.{'_config' if plugin == 'ray' else 'config'}"
    )
    schemas = (value for name, value in vars(module).items() if name.endswith("Conf") and is_dataclass(value))
    known = {field.name for schema in schemas for field in fields(schema)}
    assert set(own) <= known


@pytest.mark.parametrize(
    ("override", "plugin", "extra"),
    [
        (
            f"hydra/launcher={name}",
            f"{plugin}-launcher",
            {"joblib": "parallel", "submitit": "slurm"}.get(plugin, plugin),
        )
        for name, plugin in LAUNCHERS.items()
    ],
)
@pytest.mark.one_in(5)
def test_a_missing_plugin_is_one_line_with_the_extra_to_install(override, plugin, extra, untrained, tmp_path):
    hide = (
        "import runpy, sys, hydra.core.plugins as p\n"
        "register = p.Plugins._register\n"
        f"name = 'hydra_{plugin.replace('-', '_')}'\n"
        "p.Plugins._register = lambda self, c: None if name in c.__module__ else register(self, c)\n"
        "sys.argv[0] = 'train.py'\n"
        "runpy.run_path('train.py', run_name='__main__')"
    )
    done = call("-c", hide, "-m", "seed=0,1", override, f"output_root={tmp_path}")
    refused(
        done,
        f"{override.split('=')[0]}: the plugin hydra-{plugin} is not installed",
        f"; install it: in the checkout, pip install -e '.[{extra}]'",
    )
    assert not list(tmp_path.iterdir())


# --- devices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_gpus", "device", "expected"),
    [
        (0, "auto", "cpu"),
        (0, "auto:3", "cpu"),
        (1, "auto", "cuda"),
        (1, "auto:3", "cuda"),
        (2, "auto", "cuda"),
        (2, "auto:0", "cuda:0"),
        (2, "auto:3", "cuda:1"),
        (4, "auto:10", "cuda:2"),
        (4, "cuda:1", "cuda:1"),
        (4, "cpu", "cpu"),
    ],
)
def test_a_sweeps_jobs_take_the_gpus_in_turn(monkeypatch, num_gpus, device, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert str(choose_device(device)) == expected


@pytest.mark.parametrize("device", ["auto:", "auto:x", "auto:-1", "automatic", "cuda:4"])
def test_what_is_no_device_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match=r"^device: "):
        choose_device(device)


@pytest.mark.usefixtures("in_sequence")
def test_only_the_jobs_of_a_sweep_have_numbers(sequence, study):
    """A job is told its number, by which it is placed; a single run is not."""
    devices = {
        yaml.safe_load(path.read_text())["seed"]: yaml.safe_load(path.read_text())["device"]
        for path in sequence.glob("swept/base-*/config.yaml")
    }
    assert devices == {0: "auto:0", 1: "auto:1"}
    assert yaml.safe_load((study.run("base-*") / "config.yaml").read_text())["device"] == "auto"


# --- a search's objective -----------------------------------------------------------------------------------

RESULTS = {
    "run": "some-run",
    "test": {"neg_elbo": 1.0, "loss": 9.0},
    "iwae": {"iwae_64": 2.0},
    "fid": {"resnet18": {"generation": 3.0}, "pixels": {"generation": 4.0}},
    "accuracy": {"generated": {"overall": 5.0}},
}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 1.0),
        (["objective=neg_elbo"], 1.0),
        (["objective=iwae"], 2.0),
        (["objective=fid"], 3.0),
        (["objective=fid", "evaluation.fid.features=[pixels]"], 4.0),
        (["objective=accuracy"], 5.0),
    ],
)
def test_the_objective_is_the_number_in_the_results(overrides, expected):
    assert objective(composed(overrides), RESULTS) == expected


def test_a_classifiers_objective_is_its_loss():
    assert objective(composed([], "classifier"), RESULTS) == 9.0


@pytest.mark.parametrize("name", ["iwae", "fid", "accuracy"])
def test_results_without_the_objective_are_an_error(name):
    with pytest.raises(RunError, match=f"some-run: complete, but its results lack {name}; .*evaluate.py"):
        objective(composed([f"objective={name}"]), {"run": "some-run", "test": RESULTS["test"]})


@pytest.mark.parametrize("name", ["iwae", "fid", "accuracy"])
def test_an_objective_has_to_be_among_the_measures(name):
    tags = {"iwae": "test/iwae_64", "fid": "fid/resnet18/generation", "accuracy": "accuracy/generated/overall"}
    check_objective(composed([f"objective={name}"]), ["test/neg_elbo", tags[name]])
    with pytest.raises(ObjectiveError, match=f"^objective: '{name}' is not measured"):
        check_objective(composed([f"objective={name}"]), ["test/neg_elbo"])


REFUSED = {
    "objective=elbo": ["'elbo' is not one of neg_elbo, iwae, fid, accuracy"],
    "objective=fid": ["'fid' is not measured", "evaluation.fid.num_images"],
    "objective=accuracy": ["'accuracy' is not measured", "conditional model"],
    "objective=iwae": ["'iwae' is not measured", "evaluation.iwae.num_samples"],
}


@pytest.mark.parametrize(("override", "words"), REFUSED.items(), ids=REFUSED)
@pytest.mark.one_in(2)
def test_an_objective_that_is_not_measured_is_refused_before_training(override, words, untrained, tmp_path):
    refused(untrained.train("seed=7", override, f"output_root={tmp_path}"), "objective: ", *words)
    assert not list(tmp_path.glob("base-*"))
