"""What a sweep does with a launcher that works, dies, or never begins; without any training."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import pytest

from fmvae.config import compose
from fmvae.config.composing import composed_by
from fmvae.config.identity import RunIdentity
from fmvae.config.project import PROJECT_ROOT
from fmvae.errors import FmvaeError
from fmvae.report.sweep import write_report
from fmvae.runs.files import write_record
from fmvae.sweeps import run as sweeping
from fmvae.sweeps.directory import Plan, SweepDirectory, progress
from fmvae.sweeps.run import KILLED, run_sweep
from fmvae.sweeps.status import aligned, differing, forecast, status, summary


@pytest.fixture
def sweep(tmp_path) -> SweepDirectory:
    return SweepDirectory(tmp_path / "study")


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    """Four runs."""
    jobs = [[f"seed={seed}", "trainer.epochs=4"] for seed in range(4)]
    return dict(Plan.of(compose(job), job, "here") for job in jobs)


def finish(sweep: SweepDirectory, name: str, plan: Plan) -> None:
    test = {"neg_elbo": 250.0, "objective": 251.0}
    sweep.run(name).path.mkdir(parents=True, exist_ok=True)
    write_record(sweep.run(name).results, {"config_sha256": plan.config_sha256, "test": test})
    sweep.run(name).write_status("complete", epoch=4, epochs=4)


class Launcher:
    """Finishes every job but those that it is told to treat otherwise, and remembers them."""

    def __init__(self, sweep, plans, **otherwise: Callable[[str], None]):
        self.sweep, self.plans = sweep, plans
        self.names = {plan.overrides: name for name, plan in plans.items()}
        self.otherwise = otherwise  # by "seed<n>"
        self.launched: list[list[str]] = []
        self.first: list[int] = []

    def __call__(self, jobs: Sequence[Sequence[str]], first: int) -> None:
        names = [self.names[tuple(job)] for job in jobs]
        self.launched.append([seed_of(name) for name in names])
        self.first.append(first)
        for name in names:
            act = self.otherwise.get(seed_of(name))
            if act:
                act(name)
            else:
                finish(self.sweep, name, self.plans[name])


def seed_of(name: str) -> str:
    return f"seed{name.split('-s')[1][0]}"


def dying(sweep: SweepDirectory) -> Callable[[str], None]:
    """A job that takes its launcher with it, as a worker killed for its memory does."""

    def act(name: str) -> None:
        run = sweep.run(name)
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_status("running", epoch=1, epochs=4)
        raise RuntimeError("a worker was terminated")

    return act


def test_what_is_complete_is_not_launched(sweep, plans, capsys):
    first, *others = plans
    finish(sweep, first, plans[first])
    launcher = Launcher(sweep, plans)
    run_sweep(sweep, plans, launcher, write_report)
    assert launcher.launched == [[seed_of(name) for name in others]]
    assert "4 complete" in capsys.readouterr().out
    run_sweep(sweep, plans, launcher, write_report)
    assert len(launcher.launched) == 1


def test_results_of_another_config_are_not_complete(sweep, plans):
    first = next(iter(plans))
    finish(sweep, first, Plan(plans[first].overrides, "0" * 64, "", 4, ""))
    launcher = Launcher(sweep, plans)
    run_sweep(sweep, plans, launcher, write_report)
    assert launcher.launched == [["seed0", "seed1", "seed2", "seed3"]]


def test_a_launcher_that_dies_with_a_job_is_started_again_for_the_others(sweep, plans):
    launcher = Launcher(sweep, plans, seed1=dying(sweep))
    with pytest.raises(FmvaeError, match="1 of 4 runs failed"):
        run_sweep(sweep, plans, launcher, write_report)
    assert launcher.launched == [["seed0", "seed1", "seed2", "seed3"], ["seed2", "seed3"]]
    assert launcher.first == [0, 4]  # no two jobs of one number
    states = {seed_of(name): progress(sweep.run(name), plan) for name, plan in plans.items()}
    assert {seed: state.state for seed, state in states.items()} == {
        "seed0": "complete",
        "seed1": "failed",
        "seed2": "complete",
        "seed3": "complete",
    }
    assert states["seed1"].error == KILLED


def test_of_jobs_that_ended_with_a_launcher_each_gets_another_chance_alone(sweep, plans):
    """As joblib ends all its workers when one of them is killed."""
    guilty, begun = dying(sweep), []

    def both_running(name: str) -> None:
        begun.append(name)
        if len(begun) == 1:  # its neighbour, the next in line, is the one that kills the launcher
            sweep.run(name).path.mkdir(parents=True)
            sweep.run(name).write_status("running", epoch=1, epochs=4)
        else:
            finish(sweep, name, plans[name])

    launcher = Launcher(sweep, plans, seed0=both_running, seed1=guilty)
    with pytest.raises(FmvaeError, match="1 of 4 runs failed"):
        run_sweep(sweep, plans, launcher, write_report)
    assert launcher.launched == [["seed0", "seed1", "seed2", "seed3"], ["seed2", "seed3"], ["seed0"], ["seed1"]]
    assert launcher.first == [0, 4, 6, 7]
    states = {seed_of(name): progress(sweep.run(name), plan).state for name, plan in plans.items()}
    assert states == {"seed0": "complete", "seed1": "failed", "seed2": "complete", "seed3": "complete"}


def test_a_job_that_ends_its_launcher_before_it_begins_stops_no_other(sweep, plans):
    """As a process that is killed while it still reads its data, at every attempt."""

    def silently(name: str) -> None:
        raise RuntimeError("a worker was terminated")

    launcher = Launcher(sweep, plans, seed0=silently)
    with pytest.raises(FmvaeError, match="1 of 4 runs failed"):
        run_sweep(sweep, plans, launcher, write_report)
    assert launcher.launched == [["seed0", "seed1", "seed2", "seed3"], ["seed0"], ["seed1", "seed2", "seed3"]]
    states = {seed_of(name): progress(sweep.run(name), plan) for name, plan in plans.items()}
    assert [states[f"seed{i}"].state for i in range(4)] == ["failed", "complete", "complete", "complete"]
    assert states["seed0"].error == KILLED


@pytest.fixture
def slow_to_die(sweep, plans):
    """A launcher which says that a worker died while another one, holding seed1, has yet to be ended."""
    (name,) = (name for name in plans if seed_of(name) == "seed1")
    workers: list[subprocess.Popen] = []

    def act(killed: str) -> None:
        if workers:
            finish(sweep, killed, plans[killed])
            return
        sweep.run(killed).path.mkdir(parents=True)
        sweep.run(killed).write_status("running", epoch=1, epochs=4)
        workers.append(
            subprocess.Popen([sys.executable, "-c", HOLDING, sweep.run(name).path], stdout=subprocess.PIPE)
        )
        assert workers[0].stdout is not None
        workers[0].stdout.readline()
        threading.Timer(1.0, workers[0].kill).start()
        raise RuntimeError("a worker was terminated")

    yield Launcher(sweep, plans, seed0=act)
    for worker in workers:
        worker.kill()
        worker.communicate()


HOLDING = """
import sys, time
from pathlib import Path
from fmvae.runs.directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
with run.held():
    run.path.mkdir()
    run.write_status("running", epoch=1, epochs=4)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_worker_that_its_launcher_has_yet_to_end_is_waited_for(slow_to_die, sweep, plans):
    run_sweep(sweep, plans, slow_to_die, write_report)
    assert slow_to_die.launched[-2:] == [["seed0"], ["seed1"]]


def test_negative_control_not_waited_for_it_is_left(slow_to_die, sweep, plans, monkeypatch):
    monkeypatch.setattr(sweeping, "PATIENCE", 0)
    with pytest.raises(FmvaeError, match="runs failed"):
        run_sweep(sweep, plans, slow_to_die, write_report)
    assert ["seed1"] not in slow_to_die.launched


def test_it_may_take_others_with_it_that_had_begun(sweep, plans):
    """Its neighbours were running when it ended the launcher; at the end each of them gets its chance."""
    tried = []

    def ending_others(name: str) -> None:
        tried.append(name)
        others = [other for other in plans if other != name and progress(sweep.run(other)).state == "new"]
        for other in others[:1]:  # the one beside it
            sweep.run(other).path.mkdir(parents=True)
            sweep.run(other).write_status("running", epoch=1, epochs=4)
        raise RuntimeError("a worker was terminated")

    with pytest.raises(FmvaeError, match="1 of 4 runs failed"):
        run_sweep(sweep, plans, Launcher(sweep, plans, seed0=ending_others), write_report)
    states = {seed_of(name): progress(sweep.run(name), plan).state for name, plan in plans.items()}
    assert states == {"seed0": "failed", "seed1": "complete", "seed2": "complete", "seed3": "complete"}
    assert len(tried) == 4


def test_restart_launches_what_is_complete_too(sweep, plans, tmp_path):
    run_sweep(sweep, plans, Launcher(sweep, plans), write_report)
    again, anew = Launcher(sweep, plans), Launcher(sweep, plans)
    run_sweep(sweep, plans, again, write_report)
    run_sweep(sweep, plans, anew, write_report, restart=True)
    assert (again.launched, anew.launched) == ([], [["seed0", "seed1", "seed2", "seed3"]])
    assert "complete" in forecast(sweep, plans, tmp_path)
    assert "complete" not in forecast(sweep, plans, tmp_path, restart=True)


def test_what_failed_is_tried_again_after_what_was_never_tried(sweep, plans):
    with pytest.raises(FmvaeError):
        run_sweep(sweep, plans, Launcher(sweep, plans, seed0=dying(sweep), seed1=dying(sweep)), write_report)
    for name in plans:
        if seed_of(name) == "seed3":
            sweep.run(name).results.unlink()
    launcher = Launcher(sweep, plans)
    run_sweep(sweep, plans, launcher, write_report)
    assert launcher.launched == [["seed3", "seed0", "seed1"]]


def test_a_launcher_that_begins_nothing_is_the_error(sweep, plans):
    def launch(jobs, first):
        raise OSError("no such queue")

    with pytest.raises(OSError, match="no such queue"):
        run_sweep(sweep, plans, launch, write_report)


def test_a_run_that_someone_else_trains_is_no_failure(sweep, plans, capsys):
    theirs = next(iter(plans))
    run = sweep.run(theirs)
    run.path.mkdir(parents=True)
    with run.held():
        run.write_status("running", epoch=1, epochs=4)
        run_sweep(sweep, plans, Launcher(sweep, plans, seed0=lambda name: None), write_report)
    out = capsys.readouterr().out
    assert "1 running, 3 complete" in out
    assert f"held by process {os.getpid()}" in out


def test_negative_control_a_run_that_nobody_trains_is_one(sweep, plans):
    run = sweep.run(next(iter(plans)))
    run.path.mkdir(parents=True)
    run.write_status("running", epoch=1, epochs=4)
    with pytest.raises(FmvaeError, match="1 of 4 runs failed"):
        run_sweep(sweep, plans, Launcher(sweep, plans, seed0=lambda name: None), write_report)


def test_interrupting_is_no_failure_of_the_launcher(sweep, plans):
    def launch(jobs, first):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, plans, launch, write_report)


# --- what is said ---------------------------------------------------------------------------------------------


def test_a_summary_tells_runs_apart_and_says_why_they_failed(sweep, plans):
    a, b, *_ = plans
    finish(sweep, a, plans[a])
    sweep.run(b).path.mkdir(parents=True)
    sweep.run(b).write_status("failed", error="epoch 1, step 2: recon is nan", epoch=0)
    states = [progress(sweep.run(name), plan) for name, plan in plans.items()]
    said = summary(sweep, plans, states)
    assert "1 complete, 1 failed, 2 new" in said
    lines = {line.split()[0]: line for line in said.splitlines() if "-z2-" in line and line.startswith("  ")}
    assert "seed=0" in lines[a]
    assert "−ELBO 250.00" in lines[a]
    assert "recon is nan" in lines[b]
    assert "train.log" in lines[b]


def test_a_long_summary_shows_what_is_not_complete(sweep, plans, monkeypatch):
    monkeypatch.setattr("fmvae.sweeps.status.SHOWN", 3)
    for name in list(plans)[:3]:
        finish(sweep, name, plans[name])
    states = [progress(sweep.run(name), plan) for name, plan in plans.items()]
    said = summary(sweep, plans, states)
    assert [line.split()[2] for line in said.splitlines() if line.startswith("  ")] == ["new"]


def test_status_shows_what_another_command_put_there(sweep, plans):
    first, *others, stray = plans
    for name in plans:
        finish(sweep, name, plans[name])
    sweep.run(others[0]).write_status("failed", error="loss is nan")
    sweep.run(stray).write_status("failed", error="no space left")
    sweep.add({name: plans[name] for name in [first, *others]})
    (sweep.run(stray).path / "config.yaml").write_text("seed: 3")
    told = status(sweep.path)
    assert "2 complete, 2 failed" in told
    assert "loss is nan" in told
    assert "no space left" in told


def test_status_begins_with_what_is_at_work_and_claims_no_epochs_that_it_does_not_know(sweep, plans):
    new, partial, failed, running = plans
    sweep.add({name: plans[name] for name in (new, partial, running)})
    for name, state in ((partial, "interrupted"), (failed, "failed"), (running, "running")):
        sweep.run(name).path.mkdir(parents=True)
        sweep.run(name).write_status(state, epoch=0, **({} if name == failed else {"epochs": 4}))
    (sweep.run(failed).path / "config.yaml").write_text("seed: 3")
    with sweep.run(running).held():
        lines = status(sweep.path).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  base-")] == [running, failed, partial, new]
    assert not any("of 0" in line for line in lines)


def test_a_forecast_knows_the_pace_of_runs_like_these(sweep, plans, tmp_path):
    name = next(iter(plans))
    assert forecast(sweep, plans, tmp_path).count("unknown") == 4 + 1
    finish(sweep, name, plans[name])
    sweep.add(plans)
    sweep.run(name).timing.write_text('{"epoch_seconds": [90.0, 30.0, 30.0, 31.0]}')
    said = forecast(sweep, plans, tmp_path)
    assert said.count("2 min 02 s") == 3  # four epochs of the median, 30.5 s
    assert "6 min 06 s of training" in said
    busy = '{"epoch_seconds": [30.0, 90.0, 91.0], "busy_share": [0.0, 0.8, 0.9]}'
    sweep.run(name).timing.write_text(busy)
    assert forecast(sweep, plans, tmp_path).count("2 min 00 s") == 3  # of the epoch on quiet cores
    sweep.run(name).timing.write_text(busy.replace("[0.0", "[0.7"))
    assert forecast(sweep, plans, tmp_path).count("~6 min 00 s") == 3


def test_another_architecture_or_dataset_has_another_pace():
    def pace(*overrides: str) -> str:
        return Plan.of(compose(overrides), overrides, "")[1].pace

    assert pace() == pace("latent_dim=10", "beta=4", "seed=1", "trainer.epochs=2")
    assert len({pace(), pace("model=conv"), pace("data=fashion_mnist_small"), pace("data.batch_size=64")}) == 4


def test_overrides_that_all_share_are_left_out():
    def plan(*overrides: str) -> Plan:
        return Plan(overrides, "", "", 1, "")

    plans = {"a": plan("x=1", "y=2"), "b": plan("x=1", "y=3")}
    assert differing(plans) == {"a": "y=2", "b": "y=3"}
    assert differing({}) == {}


def test_columns_are_aligned():
    assert aligned([("a", "bcd"), ("efg", "")]) == ["  a    bcd", "  efg"]
    assert aligned([]) == []


# --- the manifest -----------------------------------------------------------------------------------------------


def test_a_manifest_keeps_what_earlier_commands_asked(sweep, plans):
    names = list(plans)
    sweep.add({names[0]: plans[names[0]]})
    content = sweep.manifest.read_bytes()
    sweep.add({names[0]: plans[names[0]]})
    assert sweep.manifest.read_bytes() == content
    sweep.add({name: plans[name] for name in names[1:]})
    assert sweep.planned() == plans
    sweep.manifest.write_bytes(content[:-20])
    assert sweep.planned() == {}  # it can be made again


def test_a_plan_is_the_run_of_its_config():
    config = compose(["beta=4", "trainer.epochs=7"])
    name, plan = Plan.of(config, ["beta=4"], "x")
    assert name == RunIdentity.of(config).name
    assert (plan.config_sha256, plan.epochs) == (RunIdentity.of(config).sha256, 7)


def test_plans_of_files_that_have_changed_since_are_dropped_if_their_runs_have_not_begun(tmp_path):
    """The same words now give another run; nothing would ever train the old one."""
    sweep = SweepDirectory(tmp_path / "s")
    begun, never, other = (f"base-b1-z2-s{i}-0000000{i}" for i in range(3))
    before = {
        begun: Plan(("seed=0",), "", "", 1, "old"),
        never: Plan(("seed=1",), "", "", 1, "old"),
        other: Plan(("seed=2",), "", "", 1, "old"),
    }
    sweep.add(before)
    sweep.run(begun).path.mkdir()
    now = {f"base-b1-z2-s{i}-1111111{i}": Plan((f"seed={i}",), "", "", 1, "new") for i in range(2)}
    sweep.add(now)
    assert set(sweep.planned()) == {begun, other, *now}
    sweep.add(now)  # the control: the same again changes nothing
    assert set(sweep.planned()) == {begun, other, *now}


def test_whatever_configs_are_composed_from_is_in_the_manifests_key(tmp_path, monkeypatch):
    module = sys.modules[composed_by.__module__]
    before = composed_by("train")
    assert before == composed_by("train") != composed_by("classifier")
    for folder in ("conf", "sweeps", "fmvae/config", "fmvae/weights"):
        shutil.copytree(PROJECT_ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "fmvae" / "config" / "composing.py"))
    monkeypatch.setattr(module.weights, "__file__", str(tmp_path / "fmvae" / "weights" / "__init__.py"))
    monkeypatch.setattr(module, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(module, "CONF", tmp_path / "conf")
    monkeypatch.setattr(module, "SWEEPS", tmp_path / "sweeps")
    assert composed_by("train") == before  # the same files in another place
    read = ["conf/model/base.yaml", "sweeps/sweep/quick.yaml", "fmvae/weights/__init__.py"]
    for path in [*(tmp_path / name for name in read), *(tmp_path / "fmvae" / "config").glob("*.py")]:
        content = path.read_bytes()
        path.write_bytes(content + b"# another\n")
        assert composed_by("train") != before, path
        path.write_bytes(content)
    assert composed_by("train") == before
    shutil.rmtree(tmp_path / "sweeps")
    (tmp_path / "sweeps").mkdir()
    assert composed_by("train") != before


def test_so_is_a_folder_of_ones_own(tmp_path):
    """As ``--config-dir`` names."""
    option = tmp_path / "experiment" / "my.yaml"
    option.parent.mkdir()
    option.write_text("beta: 0.7")
    before = composed_by("train", folders=[tmp_path])
    assert before == composed_by("train", folders=[tmp_path]) != composed_by("train")
    option.write_text("beta: 0.9")
    assert composed_by("train", folders=[tmp_path]) != before
    assert composed_by("train", folders=[PROJECT_ROOT / "conf"]) == composed_by("train")


def test_a_report_is_written_again_if_a_run_was_measured_after_it(sweep, plans, monkeypatch):
    written = []
    monkeypatch.setattr(sweeping, "report", lambda sweep, write: written.append(sweep))
    run_sweep(sweep, plans, Launcher(sweep, plans), write_report)
    report = sweep.path / "report" / "index.html"
    report.parent.mkdir()
    report.touch()
    run_sweep(sweep, plans, Launcher(sweep, plans), write_report)
    assert len(written) == 1
    later = report.stat().st_mtime + 1
    os.utime(sweep.run(next(iter(plans))).results, (later, later))
    run_sweep(sweep, plans, Launcher(sweep, plans), write_report)
    assert len(written) == 2
