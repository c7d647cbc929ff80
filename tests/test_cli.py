"""fmvae.cli, in this process: what is done to the arguments before Hydra, and what is said of errors after."""

import os
import re
import signal
import sys
from pathlib import Path

import hydra
import pytest
import torch
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from fmvae.cli import main as cli
from fmvae.cli.arguments import check_removed, list_paths, name_sweep, prepared, split_flags
from fmvae.cli.main import explain, launch
from fmvae.config import compose
from fmvae.config.identity import NAMED_BY_CONTENT, NON_SEMANTIC
from fmvae.errors import ConfigError, FmvaeError, NumericsError, RunError

DATA = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "data").glob("*.yaml"))

# --- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "listed"),
    [
        ("run=a,b", "run=[a,b]"),
        ("run=outputs/a, outputs/b", "run=[outputs/a, outputs/b]"),
        ("run=a", "run=a"),
        ("run=[a,b]", "run=[a,b]"),
        ("run=", "run="),
        ("rerun=a,b", "rerun=a,b"),
        ("seed=0,1", "seed=0,1"),
    ],
)
def test_several_runs_are_a_list(argument, listed):
    assert list_paths([argument]) == [listed]


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_the_flag_of_a_sweep_may_stand_anywhere(flag):
    for place in range(3):
        arguments = ["seed=0,1", "beta=2"]
        arguments.insert(place, flag)
        assert split_flags(arguments) == ([flag], ["seed=0,1", "beta=2"])
        assert prepared(arguments, "train") == [flag, "seed=0,1", "beta.value=2"]
    assert split_flags(["--config-dir", "x", "b=1", "a=2"]) == (["--config-dir", "x"], ["b=1", "a=2"])
    assert split_flags(["a=1", "--config-name", "classifier", "b=2"]) == (
        ["--config-name", "classifier"],
        ["a=1", "b=2"],
    )
    flags_first = ["--config-name", "classifier", "a=1", "b=2"]
    assert prepared(["a=1", "--config-name", "classifier", "b=2"], "train") == flags_first


def sweep_name(*arguments: str) -> str:
    """The name that these arguments are given."""
    *before, name = name_sweep(["-m", *arguments])
    assert before == ["-m", *arguments]
    return name.removeprefix("sweep_name=")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["beta.value=0.5,1"], "beta"),
        (["beta.value=0.5,1", "latent_dim.value=2,3"], "beta-latent_dim"),
        (["seed=range(3)", "model=conv"], "seed"),
        (["trainer.start=sharp,blurred"], "trainer.start"),
        (["model=choice(base,conv)"], "model"),
        (["optimizer.lr=1e-3,1e-4"], "optimizer.lr"),
        (["seed=1"], "sweep"),
        ([], "sweep"),
        (["seed=0,1", "data.sha256={a:b,c:d}", "model.image_shape=[1,28,28]"], "seed"),
        (["+optimizer.betas=[0.9,0.99],[0.5,0.9]"], "optimizer.betas"),
    ],
)
def test_a_sweep_is_named_by_what_it_sweeps(arguments, words):
    assert re.fullmatch(rf"{re.escape(words)}-[0-9a-f]{{8}}", sweep_name(*arguments))


def test_the_same_sweep_has_the_same_name_and_another_has_another():
    name = sweep_name("seed=0,1", "beta=2")
    assert sweep_name("beta=2", "seed=0,1") == name
    assert sweep_name("beta=2", "seed=0,1", "hydra/launcher=basic", "hydra.verbose=true") == name
    assert sweep_name("beta=3", "seed=0,1") != name
    assert sweep_name("beta=2", "seed=0,1,2") != name


@pytest.mark.parametrize("key", sorted({*NON_SEMANTIC} - {*NAMED_BY_CONTENT}))
def test_what_changes_no_number_names_no_sweep(key):
    if key != "sweep_name":
        assert sweep_name("seed=0,1", f"{key}=x") == sweep_name("seed=0,1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=0,1"],
        ["-m", "seed=0,1", "sweep_name=mine"],
        ["-m", "seed=0,1", "sweep=beta_latent"],
        ["-m", "+sweep=beta_latent"],
    ],
)
def test_a_single_run_and_a_named_sweep_get_no_name(arguments):
    assert name_sweep(arguments) == arguments


def test_a_sweep_by_hydras_own_mode_is_named_too():
    assert name_sweep(["hydra.mode=MULTIRUN", "seed=0,1"])[-1].startswith("sweep_name=seed-")


@pytest.mark.parametrize(
    ("override", "example"),
    [
        (
            "~model",
            "model=base (or beta, conditional, conditional_conv, conditional_residual, conv, gated, residual)",
        ),
        ("~beta.value", "beta.value=<a finite number >= 0>"),
        ("~model._target_", "model._target_=<value>"),
        ("~trainer.epochs", "trainer.epochs=<a whole number >= 1>"),
        ("~data", f"data={DATA[0]} (or {', '.join(DATA[1:])})"),
    ],
)
def test_a_key_the_program_reads_cannot_be_removed(override, example):
    with pytest.raises(ConfigError, match="needed; give it another value instead") as caught:
        check_removed(["seed=1", override])
    assert caught.value.way_out == f"give it another value instead: {example}"


def test_a_constructors_own_argument_can_be_removed():
    check_removed(["~optimizer.fused", "model=conv"])


# --- errors -------------------------------------------------------------------------------------------------


@pytest.fixture
def program(monkeypatch):
    """Pretend to be a program with these arguments."""

    def pretend(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"/somewhere/{name}.py", *arguments])

    pretend("train")
    return pretend


def composing(*overrides: str, name: str = "train") -> FmvaeError:
    """What is said of the error that these overrides give."""
    with pytest.raises(Exception) as caught:
        compose(["run=x", *overrides] if name == "evaluate" else overrides, name)
    explained = explain(caught.value, overrides)
    assert explained is not None
    return explained


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("overrides", "subject", "problem", "way_out"),
    [
        (
            ["model=foo"],
            "model",
            "'foo'",
            "choose from base, beta, conditional, conditional_conv, conditional_residual, conv, gated, residual",
        ),
        (["model=cnv"], "model", "'cnv'", "did you mean conv? choose from base"),
        (["beta=foo"], "beta", "'foo'", "choose from capacity, constant, cyclical, warmup, or give a number"),
        (["experiment=foo"], "experiment", "'foo'", "choose from baseline, best_"),
        (["seed=1", "model=base", "trainer=3"], "trainer", "'3'", "choose from default"),
        (["model=null"], "model", "'null'", "choose from base"),
        (["=3"], "=3", "not readable", "quote"),
        (["trainer.epoch=3"], "trainer.epoch", "no such key", "did you mean trainer.epochs? trainer holds epochs"),
        (["epochs=3"], "epochs", "no such key", "did you mean trainer.epochs?"),
        (["modle=base"], "modle", "no such key", "did you mean model?"),
        (["experimnt=baseline"], "experimnt", "no such key", "did you mean experiment?"),
        (["xyzzy=1"], "xyzzy", "no such key", "--help lists the keys and groups"),
        (["beta={a:1}"], "beta.a", "no such key", "beta holds value"),
        (["beta=warmup", "beta.fractoin=1"], "beta.fractoin", "no such key", "did you mean beta.fraction?"),
        (
            ["model=conv", "model.hidden_dim=3"],
            "model.hidden_dim",
            "model=conv has no such key",
            "choose model=base or conditional or conditional_conv or gated to give it (model holds latent_dim, ",
        ),
        (["+seed=3"], "seed", "already", "leave out the +"),
        (["~nope"], "nope", "no such key", "--help"),
        (["seed=0,1"], "seed=0,1", "several values", "add -m"),
        (
            ["evaluation.samplers=prior,gmm"],
            "evaluation.samplers=prior,gmm",
            "several values",
            "or give them as one list: 'evaluation.samplers=[prior,gmm]'",
        ),
        (["seed=range(2)"], "seed=range(2)", "several values", "add -m"),
        (["seed="], "seed", "'' is not a whole number >= 0", "leave the key out"),
        (["beta=["], "beta=[", "not readable", "quote"),
        (["model"], "model", "not readable", "quote"),
        (["seed=???"], "seed", "no value", "add seed="),
        (["optimizer.lr=${nope}"], "optimizer.lr", "'nope' not found", "write the value itself"),
        (["optimizer.lr=${oc.env:NOPE}"], "optimizer.lr", "'NOPE' not found", "write the value itself"),
        (["optimizer.lr=${nope:1}"], "optimizer.lr", "nope", "write the value itself"),
        (["optimizer.lr=${optimizer.lr}"], "optimizer.lr", "Recursive", "write the value itself"),
        (["hydra.job.num=x"], "hydra.job.num", "Error merging override", "--help"),
        (["data.image_shape.5=1"], "data.image_shape[5]", "", "--help"),
        (["seed=-1"], "seed", "-1 is not a whole number >= 0", "leave the key out"),
        (["evaluation.samplers=gmm"], "evaluation.samplers", "'gmm' is not a list of prior", "as [gmm]"),
        (["evaluation.samplers=null"], "evaluation.samplers", "null is not a list of prior", "leave the key out"),
        (["evaluation.samplers=[gm]"], "evaluation.samplers", "is not a list of prior", "did you mean gmm?"),
        (
            ["evaluation.samplers={gmm:1}"],
            "evaluation.samplers",
            "{gmm:1} is not a list of prior",
            "did you mean gmm?",
        ),
        (
            ["evaluation.disentanglement.seed=-1"],
            "evaluation.disentanglement.seed",
            "<= 4294967295",
            "leave the key",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.one_in(3)
def test_errors_of_composing(overrides, subject, problem, way_out):
    explained = composing(*overrides)
    assert explained.subject == subject
    assert problem in explained.problem
    assert way_out in explained.way_out
    assert "\n" not in str(explained)
    assert "None" not in str(explained)


def test_suggestions_are_of_the_program_itself(program):
    program("evaluate")
    assert composing("chekpoint=last", name="evaluate").way_out.startswith("did you mean checkpoint?")
    for of_training in ("trainer.epochs=3", "beta.value=4", "model=conv"):
        assert "part of the run's own config" in composing(of_training, name="evaluate").problem
    assert (
        "did you mean evaluation.fid.num_images"
        in composing("evaluation.fid.num_image=3", name="evaluate").way_out
    )


@pytest.mark.usefixtures("program")
def test_a_suggestion_survives_choices_that_cannot_be_composed():
    """Two mistakes at once, or a sweep: Hydra tells of one, and the hint must not fail over the other."""
    error = ConfigCompositionException("Could not override 'trainer.epoch'.")
    for choice in ("model=nope", "model=base,conv", "model=3"):
        explained = explain(error, [choice, "trainer.epoch=3"])
        assert explained is not None
        assert "trainer.epochs" in explained.way_out


@pytest.mark.usefixtures("program")
def test_a_key_of_other_options_is_not_suggested_for_itself():
    error = ConfigCompositionException("Could not override 'model.hidden_dim'.")
    explained = explain(error, ["model=conv,beta", "model.hidden_dim=3"])
    assert explained is not None
    assert "hidden_dim" not in explained.way_out


@pytest.mark.usefixtures("program")
def test_only_groups_with_a_number_take_one():
    assert composing("scheduler=foo").way_out == "choose from cosine, exponential, none, plateau, step"
    assert composing("latent_dim=foo").way_out.endswith(", or give a number")


def test_our_own_errors_are_as_they_are():
    for error in (ConfigError("a", "b", "c"), RunError("a", "b", "c"), NumericsError("a", "b", "c")):
        assert explain(error) is error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file", "x/y"), "x/y: No such file; check the path"),
        (OSError(28, "No space left on device"), "output: No space left on device; check the path"),
        (OSError("odd"), "output: odd; check the path"),
        (BrokenPipeError(32, "Broken pipe"), "output: Broken pipe; check the path"),
        (ConnectionError("no head at 127.0.0.1"), "connection: no head at 127.0.0.1; check that the server runs"),
        (MemoryError(), "memory: exhausted; lower data.batch_size"),
        (OverrideParseException("a b", "mismatched input"), "a b: not readable as key=value; quote"),
        (MissingConfigException("no", "nope"), "config: there is no option 'nope'; --help"),
        (MissingConfigException("no", "a/b/c", ["d"]), "a/b: there is no option 'c'; choose from d"),
        (HydraException("first\nsecond"), "command line: first; --help"),
        (HydraException(""), "command line: HydraException; --help"),
        (OmegaConfBaseException("x"), "command line: x; --help"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.one_in(2)
def test_errors_of_other_kinds(error, line):
    assert str(explain(error)).startswith(line)


def test_memory_of_the_device():
    """By name, as nothing here imports torch."""
    error = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.")
    assert str(explain(error)).startswith("memory: CUDA out of memory.; lower data.batch_size")


def test_memory_of_the_processor_that_torch_asks_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert str(explain(caught.value)).startswith("memory: ")
    assert "lower data.batch_size" in str(explain(caught.value))


# --- the programs -------------------------------------------------------------------------------------------


@pytest.fixture
def launched(program, monkeypatch, capsys):
    """Launches a main that does as told, as train.py; returns the exit status and both outputs."""
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    for name in ("HYDRA_FULL_ERROR", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "1")

    def launch_(main, *arguments: str) -> tuple[object, str, str]:
        program("train", *arguments)
        with pytest.raises(SystemExit) as ended:
            launch(main)
        assert signal.SIGTERM in handlers
        return (ended.value.code, *capsys.readouterr())

    return launch_


def raising(error: BaseException):
    def main():
        raise error

    return main


def test_a_main_that_ends_well(launched):
    seen = []
    status = launched(lambda: seen.append(sys.argv[1:]), "model=conv", "-m", "beta=0.5,1", "seed=3")
    assert status == (0, "", "")
    ((multirun, *overrides, name),) = seen
    assert (multirun, overrides) == ("-m", ["model=conv", "beta.value=0.5,1", "seed=3"])
    assert name.startswith("sweep_name=beta-")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_an_error_is_one_line_and_status_one(launched):
    assert launched(raising(RunError("outputs/x", "held\nby 7", "wait"))) == (
        1,
        "",
        "fmvae: error: outputs/x: held by 7; wait\n",
    )


def test_ctrl_c_says_what_continues(launched):
    assert launched(raising(KeyboardInterrupt())) == (130, "", "interrupted; repeat the command to continue\n")


def test_the_handler_of_sigterm_ends_with_its_status(program, monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit):
        launch(lambda: None)
    with pytest.raises(SystemExit) as ended:
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert ended.value.code == 143


def test_an_argument_that_cannot_be_read_is_refused_before_hydra(launched):
    status, stdout, stderr = launched(lambda: pytest.fail("called"), "-m", "seed=[")
    assert (status, stdout) == (1, "")
    assert stderr.startswith("fmvae: error: seed=[: not readable as key=value; ")


def hydra_main(function, tmp_path: Path):
    """A program of one key, as train.py is one, in which ``function(config, overrides)`` is the job."""
    (tmp_path / "tiny.yaml").write_text(
        "defaults: [_self_, {override hydra/job_logging: none}, {override hydra/hydra_logging: none}]\n"
        "workers: 1\n"
        "hydra: {run: {dir: .}, sweep: {subdir: .}, job: {chdir: false}, output_subdir: null}\n",
        encoding="utf-8",
    )

    @hydra.main(version_base="1.3", config_path=str(tmp_path), config_name="tiny")
    def main(composed):
        return cli.job(function, composed)

    return main


def test_a_job_gets_plain_values_and_its_overrides_as_they_were_written(launched, tmp_path):
    """An interpolation is of the job's own keys, which Hydra's do not hold."""
    seen = []
    main = hydra_main(lambda *arguments: seen.append(arguments), tmp_path)
    assert launched(main, "workers=7", "+threads=${workers}") == (0, "", "")
    assert seen == [({"workers": 7, "threads": 7}, ["workers=7", "+threads=${workers}"])]
    assert type(seen[0][0]) is dict


def test_a_job_that_fails_is_one_line(launched, tmp_path):
    def fails(config, overrides):
        raise RunError("outputs/x", "damaged", "train it again")

    finished = launched(hydra_main(fails, tmp_path))
    assert finished == (1, "", "fmvae: error: outputs/x: damaged; train it again\n")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("model"),
        ValueError("Could not override 'seed'"),
        RuntimeError("Missing mandatory value: seed"),
        AssertionError(),
        HydraException("a compose of our own went wrong"),
        OmegaConfBaseException("a config of our own was read wrongly"),
    ],
)
def test_a_bug_keeps_its_traceback(program, tmp_path, monkeypatch, error):
    """Whatever a job raises that nobody foresaw is no user's mistake, and must not look like one."""

    def fails(config, overrides):
        raise error

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for name in ("HYDRA_FULL_ERROR", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "1")
    program("train")
    with pytest.raises(type(error)) as caught:
        launch(hydra_main(fails, tmp_path))
    assert caught.value is error


def test_the_same_outside_of_a_job_is_of_the_command_line(launched):
    """There is nothing but the user's arguments that Hydra works on before the first job."""
    status, _, stderr = launched(raising(AssertionError("range() arg 3 must not be zero")))
    assert (status, stderr) == (
        1,
        "fmvae: error: command line: range() arg 3 must not be zero; --help lists the keys and groups\n",
    )
