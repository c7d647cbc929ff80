"""A key that nothing reads would name a run and change nothing of it: each is refused, at every level."""

import copy
from pathlib import Path

import pytest
import yaml

from fmvae.config import compose, known
from fmvae.config.building import find_class
from fmvae.config.known import OWN_MEASURES, unknown_keys
from fmvae.config.project import CONF, groups, own_keys
from fmvae.config.schema import walk
from fmvae.errors import ConfigError
from tests.cli.process import ROOT, call, refused, snapshot, succeeded
from tests.faults.warmed import warmed
from tests.golden.names import OF_FILES

BOM = "﻿"
BODY = "trainer:\n  epochs: 1\n"
LINE = "# @package _global_\n"
MISPLACED = {
    "a comment before it": "# mine\n" + LINE + BODY,
    "a byte-order mark": BOM + LINE + BODY,
    "a document's start before it": "---\n" + LINE + BODY,
    "no line": BODY,
    "a misspelt line": "# @packge _global_\n" + BODY,
    "of Windows, none": BODY.replace("\n", "\r\n"),
    "another package": "# @package global\n" + BODY,
}


@pytest.fixture
def mine(tmp_path):
    """Write ``experiment/<name>.yaml`` of one's own."""

    def write(text: str, name: str = "mine", group: str = "experiment") -> Path:
        path = tmp_path / "conf" / group / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write


def train(study, mine_: Path, *arguments: str):
    folder = next(parent for parent in mine_.parents if parent.name == "conf")
    return warmed().call("train.py", *study.settings, f"--config-dir={folder}", *arguments)


@pytest.mark.parametrize("text", MISPLACED.values(), ids=MISPLACED)
@pytest.mark.parametrize("swept", [False, True], ids=["one", "swept"])
@pytest.mark.one_in(5)
def test_an_experiment_whose_package_line_is_not_the_first(study, mine, text, swept):
    path = mine(text)
    arguments = ["-m", "experiment=mine,baseline"] if swept else ["experiment=mine"]
    refused(train(study, path, *arguments), f"{path}: ", "# @package _global_", "first line")
    assert not list(study.outputs.glob("*/*/config.yaml"))


def test_a_sweeps_file_without_its_package_line(study, mine):
    path = mine("trainer:\n  epochs: 1\n", group="sweep")
    refused(train(study, path, "sweep=mine"), f"{path}: ", "# @package _global_")


@pytest.mark.parametrize("start", ["", "\n\n"], ids=["first", "blank lines"])
def test_an_experiment_whose_line_is_the_first_is_read(study, mine, start):
    """The control, with what Hydra passes over before the line."""
    path = mine(start + LINE + "seed: 7\n")
    assert "base-b1-z2-s7-" in succeeded(train(study, path, "experiment=mine", "dry_run=true"))


# what a file holds, and what is said: the key, and what was meant
WRONG = {
    "trainer:\n  epoch: 2\n": ["trainer.epoch: ", "did you mean trainer.epochs?"],
    "trianer:\n  epochs: 2\n": ["trianer: ", "did you mean trainer?"],
    "seeds: 3\n": ["seeds: ", "did you mean seed?"],
    "evaluation:\n  iwae:\n    samples: 3\n": [
        "evaluation.iwae.samples: ",
        "did you mean evaluation.iwae.num_samples?",
    ],
    "figures:\n  traversal:\n    step: 3\n": ["figures.traversal.step: ", "did you mean figures.traversal.steps?"],
    "model:\n  hiden_dim: 3\n": ["model.hiden_dim: ", "did you mean model.hidden_dim?"],
    "data:\n  batchsize: 3\n": ["data.batchsize: ", "did you mean data.batch_size?"],
    "optimizer:\n  learning_rate: 3\n": ["optimizer.learning_rate: ", "optimizer holds lr"],
    "beta:\n  fraction: 0.5\n": ["beta.fraction: ", "beta holds value"],
    "likelihood:\n  sigma: 0.5\n": ["likelihood.sigma: "],
    "scheduler:\n  gamma: 0.5\n": ["scheduler.gamma: ", "choose scheduler=<option>"],
    "latent_dim:\n  dims: 0.5\n": ["latent_dim.dims: ", "latent_dim holds value"],
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=WRONG)
@pytest.mark.one_in(6)
def test_a_misspelt_key_of_a_file_is_named_with_its_file(study, mine, text, words):
    path = mine(LINE + text)
    before = snapshot(study.outputs)
    refused(train(study, path, "experiment=mine"), *words, f"(in {path})")
    refused(train(study, path, "-m", "experiment=mine,baseline"), *words, f"(in {path})")
    assert snapshot(study.outputs) == before


# of the command line: keys that another program or kind of run reads, or that the program gives itself
ADDED = {
    "+workers=3": "workers: ",
    "+force=true": "force: ",
    "+checkpoint=last": "checkpoint: ",
    "+trainer.blur=0.3": "trainer.blur: ",
    "+trainer.label_smoothing=0.1": "trainer.label_smoothing: ",
    "+data.device=cpu": "data.device: ",
    "+optimizer.params=[]": "optimizer.params: ",
    "+beta._name_=x": "beta._name_: ",
    "+likelihood.beta=2": "likelihood.beta: ",
    "+anything.at.all=1": "anything: ",
    "+model={_target_:fmvae.models.BaseVAE,_name_:base,latent_dim:2,depth:3}": "model",
}


@pytest.mark.parametrize(("argument", "subject"), ADDED.items(), ids=ADDED)
@pytest.mark.one_in(4)
def test_a_key_that_is_added_must_be_read_by_something(study, argument, subject):
    refused(warmed().call("train.py", *study.settings, argument), subject)


NO_SUCH_KIND = {
    "optimizer._target_=fmvae.models.VAE": ["optimizer._target_: ", "Optimizer"],
    "model._target_=torch.nn.Linear": ["model._target_: ", "VAE"],
    "beta._target_=fmvae.models.VAE": ["beta._target_: ", "BetaSchedule"],
    "model._target_=torch.nn.attention.SDPBackend": ["model._target_: ", "VAE"],
    "model._target_=fmvae.models.Nope": ["model._target_: ", "there is no"],
}


@pytest.mark.parametrize(("argument", "words"), NO_SUCH_KIND.items(), ids=NO_SUCH_KIND)
@pytest.mark.one_in(3)
def test_a_class_of_another_kind_is_what_is_wrong_not_its_arguments(study, argument, words):
    refused(warmed().call("train.py", *study.settings, argument), *words)


@pytest.mark.slow
def test_the_kinds_are_those_that_are_built():
    """Each option's class is one, so that its arguments are looked at."""
    for group, kind in known.KINDS.items():
        for option in groups()[group]:
            if f"{group}={option}" in OF_FILES:
                continue
            node = compose([f"{group}={option}"])[group]
            assert not node or known._is_kind(group, find_class(node["_target_"])), (option, kind)


@pytest.mark.parametrize("argument", ["+optimizer.eps=1e-7", "+optimizer.betas=[0.9,0.99]", "model._name_=mine"])
def test_an_argument_that_a_constructor_takes_can_be_added(argument):
    key, _, _ = argument.lstrip("+").partition("=")
    group, _, name = key.partition(".")
    assert name in compose([argument])[group]


def test_the_classifier_reads_its_own_keys():
    assert compose(["trainer.blur=0.1"], "classifier")["trainer"]["blur"] == 0.1


@pytest.mark.parametrize("argument", ["+beta.value=1", "+figures.every=1", "+data.device=cpu"])
def test_the_classifier_reads_no_others(argument):
    with pytest.raises(ConfigError, match="no such key"):
        compose([argument], "classifier")


@pytest.mark.parametrize("argument", ["+seed=1", "+evaluation.fid.num=1", "+figures.evry=1"])
def test_so_has_evaluate(argument):
    with pytest.raises(ConfigError, match="no such key"):
        compose(["run=x", argument], "evaluate")


ALL = [f"{group}={option}" for group, options in groups().items() if group != "sweep" for option in options]
OPTIONS = [option for option in ALL if option not in OF_FILES]  # those have tests with their files


@pytest.mark.parametrize("override", OPTIONS)
@pytest.mark.one_in(6)
def test_everything_of_ours_is_read(override):
    compose([override])


@pytest.mark.parametrize(
    "override", ["", "model=conditional_conv", "beta=capacity", "scheduler=cosine", "optimizer=sgd"]
)
@pytest.mark.one_in(3)
def test_a_key_is_noticed_wherever_it_is_put(override):
    """At every level of a config: each mapping in turn gets one key more."""
    config = compose([override] if override else [])
    places = [path for path, node in walk(config) if isinstance(node, dict)]
    assert len(places) > 15
    assert not list(unknown_keys(config))
    for place in places:
        node = changed = copy.deepcopy(config)
        for part in place.split(".") if place else ():
            node = node[part]
        node["odd_one"] = 1
        if place == OWN_MEASURES:  # names are free there; what they stand for is checked when it is built
            assert not list(unknown_keys(changed))
            continue
        (found,) = unknown_keys(changed)
        assert found[0] == f"{place}.odd_one".lstrip(".")


def test_a_key_that_another_value_names_is_read(study, mine):
    path = mine(
        LINE + "width: 16\nmine:\n  deep: 3\nmodel:\n  hidden_dim: ${width}\ntrainer:\n  patience: ${mine.deep}\n"
    )
    settings = [s for s in study.settings if not s.startswith("model.hidden_dim")]
    folder = f"--config-dir={path.parents[1]}"
    said = succeeded(warmed().call("train.py", *settings, folder, "experiment=mine", "dry_run=true"))
    assert "base-b1-z2-s0-" in said
    refused(warmed().call("train.py", *settings, folder, "experiment=mine", "model.hidden_dim=3"), "width: ")


def test_a_group_of_ones_own_without_its_package_line(study, mine):
    path = mine(BODY, group="tuning")
    refused(train(study, path, "+tuning=mine"), f"{path}: ", "'tuning'", "# @package _global_")
    path = mine(LINE + "seed: 7\n", group="tuning")
    assert "-s7-" in succeeded(train(study, path, "+tuning=mine", "dry_run=true"))
    finished = warmed().call("train.py", *study.settings, "+experiment.seed=3")
    assert "first line" not in refused(finished, "experiment: ")


def test_it_is_the_check_that_notices(monkeypatch):
    """The control: without it the run is composed, under a name of its own."""
    monkeypatch.setattr("fmvae.config.composing.check_known", lambda *_: None)
    assert compose(["+workers=3"])["workers"] == 3


def test_the_programs_own_files_say_what_is_read():
    train_ = own_keys("train")
    assert set(train_["trainer"]) == set(yaml.safe_load((CONF / "trainer" / "default.yaml").read_text("utf-8")))
    assert "blur" in own_keys("classifier")["trainer"]
    assert "blur" not in train_["trainer"]
    assert {"run", "workers"} <= own_keys("evaluate").keys()
    assert "experiment" not in train_


def test_a_file_is_found_by_what_it_holds(tmp_path):
    for name, text in {"a": LINE + "x: {y: 1}\n", "b": "y: 1\n", "c": "# @package m.n\nz: 1\n"}.items():
        (tmp_path / "g").mkdir(exist_ok=True)
        (tmp_path / "g" / f"{name}.yaml").write_text(text)
    runtime = {"config_sources": [{"path": str(tmp_path), "schema": "file"}]}

    def found(path: str, choice: str) -> str:
        file = known._file_of(path, {**runtime, "choices": {"g": choice}})
        return file.stem if file else ""

    assert [found("x.y", "a"), found("g.y", "b"), found("m.n.z", "c"), found("q", "a")] == ["a", "b", "c", ""]


# --- what a swept file asks of Hydra ------------------------------------------------------------------------

ASKS = {
    "a launcher": ("defaults:\n  - override /hydra/launcher: stacked\n", "hydra.launcher._target_: "),
    "a sweep of its own": ("hydra:\n  sweeper:\n    params:\n      seed: 1,2\n", "hydra.sweeper.params"),
    "another folder": ("hydra:\n  sweep:\n    dir: /tmp/elsewhere\n", "hydra.sweep.dir: "),
    "another folder for the job": ("hydra:\n  job:\n    chdir: true\n", "hydra.job.chdir: "),
    "batches": ("hydra:\n  sweeper:\n    max_batch_size: 1\n", "hydra.sweeper.max_batch_size: "),
    "another sweeper": ("hydra:\n  sweeper:\n    _target_: x.y\n", "hydra.sweeper._target_: "),
}


@pytest.mark.parametrize(("text", "subject"), ASKS.values(), ids=ASKS)
@pytest.mark.one_in(3)
def test_what_one_of_several_swept_files_asks_of_hydra_is_refused(study, mine, text, subject):
    path = mine(LINE + text)
    finished = train(study, path, "-m", "experiment=mine,baseline", "dry_run=true")
    line = refused(finished, subject)
    if "job" not in subject:
        assert "experiment=mine sets it" in line


@pytest.mark.slow
def test_what_a_single_file_asks_of_a_sweep_is_heeded(study, mine):
    launched = mine(LINE + "defaults:\n  - override /hydra/launcher: stacked\n")
    said = succeeded(train(study, launched, "-m", "experiment=mine", "seed=0,1"))
    assert "stacked: 2 runs" in said
    swept = mine(
        LINE + "sweep_name: s\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 3,4,5\n", "two"
    )
    assert "3 runs" in succeeded(train(study, swept, "experiment=two", "dry_run=true"))


@pytest.mark.slow
def test_a_jobs_own_environment_is_heeded(study, mine):
    """What Hydra sets for each job may differ from job to job, where each has an environment."""
    one = mine(LINE + 'seed: 7\nhydra:\n  job:\n    env_set:\n      OMP_NUM_THREADS: "1"\n')
    assert "2 runs" in succeeded(train(study, one, "-m", "experiment=mine,baseline", "dry_run=true"))
    for arguments in (["experiment=mine,baseline"], ["seed=0,1", '+hydra.job.env_set.OMP_NUM_THREADS="1"']):
        finished = train(study, one, "-m", *arguments, "hydra/launcher=stacked")
        assert finished.status == 1
        assert "hydra.job.env_set: " in finished.stdout + finished.stderr


def test_a_search_over_such_files_is_refused(study, mine):
    pytest.importorskip("optuna")
    path = mine(LINE + "defaults:\n  - override /hydra/launcher: stacked\n")
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials.total=1"]
    for space in ("experiment=choice(mine,baseline)", '+hydra.sweeper.params.experiment="choice(mine,baseline)"'):
        refused(train(study, path, *search, space), "hydra.launcher._target_: ", "experiment=mine sets it")


@pytest.mark.parametrize(
    "argument",
    ["hydra/launcher=stacked", "+hydra.launcher.size=3", "hydra/sweeper=optuna", "hydra.sweeper.params=null"],
)
def test_a_launcher_of_a_single_run_is_refused(study, argument):
    refused(warmed().call("train.py", *study.settings, argument), argument.lstrip("+"), "-m")


def test_a_job_that_asks_for_the_same_is_heeded(study, mine):
    """The control: the command line asks for all what one file asks for itself."""
    path = mine(LINE + "defaults:\n  - override /hydra/launcher: stacked\n")
    arguments = ["-m", "experiment=mine,baseline", "hydra/launcher=stacked", "seed=4", "dry_run=true"]
    succeeded(train(study, path, *arguments))


def test_a_cold_process_says_the_same(study, mine):
    path = mine(MISPLACED["a byte-order mark"])
    arguments = [*study.settings, "experiment=mine", f"--config-dir={path.parents[1]}"]
    refused(call(str(ROOT / "train.py"), *arguments), "first line")
