"""Another use of Hydra in the same process is left as it was; each flag of Hydra's own is heeded or refused."""

import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import OmegaConf

from fmvae.cli.arguments import INFO, PLAIN, REFUSED, TOPICS, VALUED, split_flags
from fmvae.config import compose, composing
from fmvae.measurement.load import load_run
from tests.cli.process import ROOT, call, refused, snapshot, succeeded
from tests.faults.warmed import warmed


@pytest.fixture
def theirs(tmp_path):
    """A Hydra application of someone else's, in this process."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "app.yaml").write_text("mine: 3\n")
    with hydra.initialize_config_dir(str(tmp_path / "conf"), job_name="theirs", version_base="1.2"):
        yield


@pytest.mark.usefixtures("theirs")
def test_composing_beside_another_hydra():
    application, base = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    for _ in range(2):
        assert compose(["beta=2"])["beta"]["value"] == 2
        assert GlobalHydra.instance().hydra is application
        assert VersionBase.instance().version_base == base
        assert JobRuntime.instance().get("name") == "theirs"
    assert hydra.compose("app").mine == 3  # and theirs still composes theirs


@pytest.mark.usefixtures("theirs")
def test_a_config_that_is_refused_gives_theirs_back_too():
    application = GlobalHydra.instance().hydra
    with pytest.raises(Exception, match="Could not"):
        compose(["nope=2"])
    assert GlobalHydra.instance().hydra is application
    assert hydra.compose("app").mine == 3


@pytest.mark.usefixtures("theirs")
def test_setting_it_aside_is_what_makes_it_work(monkeypatch):
    import contextlib

    monkeypatch.setattr(composing, "state_set_aside", contextlib.nullcontext)
    with pytest.raises(ValueError, match="already initialized"):
        compose()


def test_without_another_hydra_there_is_none_afterwards():
    GlobalHydra.instance().clear()
    compose()
    assert not GlobalHydra.instance().is_initialized()


APPLICATION = """
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path="conf", config_name="app")
def main(config):
    from fmvae.config import compose
    from fmvae.measurement import load_run
    assert compose(["beta=2"])["beta"]["value"] == 2
    found = load_run(config.run)
    assert HydraConfig.get().job.name == "app"
    print("test", found.results["test"]["num_images"], config.mine)

main()
"""


def test_ones_own_application_opens_a_run(study, tmp_path):
    succeeded(study.train())
    (run,) = study.outputs.glob("base-*")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "app.yaml").write_text(
        f"mine: 3\nrun: {run}\nhydra: {{run: {{dir: .}}, output_subdir: null}}\n"
    )
    (tmp_path / "app.py").write_text(APPLICATION)
    assert succeeded(call("app.py", cwd=tmp_path)).splitlines()[-1] == "test 600 3"


@pytest.mark.usefixtures("theirs")
def test_opening_a_run_beside_another_hydra(study):
    succeeded(warmed().call("train.py", *study.settings))
    (run,) = study.outputs.glob("base-*")
    assert load_run(run).results["test"]["num_images"] == 600
    assert OmegaConf.has_resolver("hydra")


# --- Hydra's flags ------------------------------------------------------------------------------------------


def test_the_flags_that_take_a_value_are_all_known():
    """Hydra's own parser says which there are."""
    takes_one, may_take_one, takes_none = set(), set(), set()
    for action in get_args_parser()._actions:
        if action.option_strings and action.nargs is None:
            takes_one |= set(action.option_strings)
        if action.option_strings and action.nargs == "?":
            may_take_one |= set(action.option_strings)
            assert tuple(action.choices or ()) == TOPICS
        if action.option_strings and action.nargs == 0:
            takes_none |= set(action.option_strings)
    assert takes_one == {*VALUED, "--experimental-rerun", "--config-path", "-cp"}
    assert may_take_one == set(INFO)
    assert takes_none == {*PLAIN, "--hydra-help"}
    assert set(REFUSED) == (takes_one | takes_none) - {*VALUED, *PLAIN}


@pytest.mark.parametrize(
    ("typed", "flags"),
    [
        ("seed=3 --info defaults-tree", ["--info=defaults-tree"]),
        ("--info defaults seed=3", ["--info=defaults"]),
        ("seed=3 -i", ["--info=all"]),
        ("--info seed=3", ["--info=all"]),
        ("seed=3 --cfg job --resolve", ["--cfg", "job", "--resolve"]),
        ("seed=3 -m", ["-m"]),
        (
            "--config-name classifier seed=3 --package trainer",
            ["--config-name", "classifier", "--package", "trainer"],
        ),
        ("seed=3 --config-dir=x -m", ["--config-dir=x", "-m"]),
    ],
)
def test_flags_may_stand_anywhere(typed, flags):
    assert split_flags(typed.split()) == (flags, ["seed=3"])
    namespace = get_args_parser().parse_args([*flags, "seed=3"])
    assert namespace.overrides == ["seed=3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("seed=3 --info defaults-tree", "data: fashion_mnist"),
        ("seed=3 --info", "Installed Hydra Plugins"),
        ("seed=3 --cfg job", "seed: 3"),
        ("--cfg job seed=3 --package trainer", "epochs:"),
        ("seed=3 --cfg job --resolve", "seed: 3"),
        ("--help seed=3", "== Groups"),
    ],
)
@pytest.mark.one_in(3)
def test_hydras_flags_do_what_they_say(tmp_path, arguments, said):
    done = call(str(ROOT / "train.py"), *arguments.split(), cwd=tmp_path)
    assert (done.status, "Traceback" in done.stderr) == (0, False), done
    assert said in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("train.py", "--beta=0.5", ["--beta=0.5: ", "write beta=0.5"]),
        ("train.py", "--beta 0.5", ["--beta: ", "write beta=<value>"]),
        ("train.py", "-beta=1", ["-beta=1: ", "write beta=1"]),
        ("evaluate.py", "--run=outputs/x", ["write run=outputs/x"]),
        ("train.py", "-M seed=0,1", ["-M: ", "there is no such flag"]),
        ("train.py", "--hydra-help", ["--hydra-help: ", "--help"]),
        ("train.py", "--config-path=x", ["--config-path: ", "--config-dir"]),
        ("train.py", "--config-name=mine", ["config: ", "'mine'", "train, classifier"]),
        ("evaluate.py", "--config-name train run=x", ["config: ", "'train'", "evaluate"]),
    ],
)
def test_flags_that_there_are_not(program, arguments, words):
    refused(warmed().call(program, *arguments.split()), *words)


def test_threads_compose_one_after_the_other():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda beta: compose([f"beta={beta}"])["beta"]["value"], range(16)))
    assert values == list(range(16))
    assert not GlobalHydra.instance().is_initialized()


def test_a_pickle_is_not_rerun(tmp_path):
    pickle = tmp_path / "config.pickle"
    pickle.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    for arguments in (["--experimental-rerun", str(pickle)], [f"--experimental-rerun={pickle}"]):
        refused(call(str(ROOT / "train.py"), *arguments, cwd=tmp_path), "--experimental-rerun: ", "pickle")
    assert {path.name for path in tmp_path.iterdir()} == {"config.pickle"}


FIXED = ["hydra.run.dir=here", "hydra.job.chdir=true", "hydra.output_subdir=.hydra", "hydra.sweep.subdir=x"]


@pytest.mark.parametrize("option", FIXED)
@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
@pytest.mark.one_in(4)
def test_what_would_move_a_runs_files_is_refused(study, tmp_path, option, program):
    here = tmp_path / "here"
    here.mkdir()
    arguments = study.settings if program == "train.py" else ["run=x"]
    before = snapshot(tmp_path)
    refused(warmed().call(program, *arguments, option, cwd=here), option.partition("=")[0])
    if program == "train.py" and option != "hydra.run.dir=here":
        refused(warmed().call(program, *arguments, option, "-m", "seed=0,1", cwd=here), option.partition("=")[0])
    assert snapshot(tmp_path) == before


def test_an_output_root_from_where_the_command_is_given(study, tmp_path):
    """One folder deep: nothing is entered twice."""
    here = tmp_path / "here"
    here.mkdir()
    settings = [s for s in study.settings if not s.startswith("output_root")]
    succeeded(warmed().call("train.py", *settings, "output_root=rel", cwd=here))
    assert [path.name for path in here.iterdir()] == ["rel"]
    assert len(list((here / "rel").glob("base-*/results.json"))) == 1
    assert not (here / "rel" / "rel").exists()


def test_a_refused_run_makes_no_folder(study, tmp_path):
    settings = [s for s in study.settings if not s.startswith("output_root")]
    refused(warmed().call("train.py", *settings, "output_root=new", "device=banana", cwd=tmp_path), "banana")
    left = {path.name for path in tmp_path.rglob("*") if ".locks" not in path.parts}
    assert left <= {"new", ".locks"}
    refused(warmed().call("train.py", *settings, "output_root=newer", "trainer.epochs=0", cwd=tmp_path), "epochs")
    assert not (tmp_path / "newer").exists()


def test_a_shell_completes(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-sc", "install=bash"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert Path(sys.executable).name in done.stdout or "complete" in done.stdout
