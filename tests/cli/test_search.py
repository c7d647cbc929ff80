"""Searches on the command line: continued as told, by one objective or two, with runs that are ended early."""

import json
import re
import shlex
import sqlite3
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")

from fmvae.report.sweep import write_report
from fmvae.runs.directory import RunDirectory
from fmvae.sweeps import search
from fmvae.sweeps.database import opened
from fmvae.sweeps.record import Record, Trial, read_studies
from tests.cli.process import call, refused
from tests.cli.test_launchers import QUICK, launched
from tests.faults.warmed import warmed
from tests.report.fakes import write_run

SEARCH = ["beta=interval(0.5,4)", "hydra/sweeper=optuna"]


def trials(folder: Path) -> list[tuple[str, float]]:
    with sqlite3.connect(folder / "swept" / "study.db") as database:
        return database.execute(
            "select state, param_value from trials join trial_params using (trial_id) order by trial_id"
        ).fetchall()


NO_TARGETS = ["objective=elbo", "objective=fid", "objective=accuracy", "objective=latent/active_units"]


@pytest.mark.parametrize("override", NO_TARGETS)
@pytest.mark.one_in(3)
def test_a_search_by_what_is_not_measured_ends_at_once(override, untrained, tmp_path):
    done = untrained.train("-m", *SEARCH, *QUICK, override, f"output_root={tmp_path}")
    assert done.status == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("fmvae: error: ")]
    assert len(lines) == 1, done
    assert lines[0].startswith("fmvae: error: objective: ")
    assert not list(tmp_path.glob("swept/base-*/checkpoints"))


def test_a_search_is_continued_by_the_same_command(untrained, tmp_path):
    """Up to its number of trials; one that was interrupted comes first, and with its own parameters."""
    total = "hydra.sweeper.n_trials.total"
    runs = launched(untrained, tmp_path, *SEARCH, f"{total}=2")
    before = trials(tmp_path)
    assert [state for state, _ in before] == ["COMPLETE"] * 2
    found = yaml.safe_load((tmp_path / "swept" / "optimization_results.yaml").read_text())
    losses = {name: json.loads(bits["results.json"])["test"]["neg_elbo"] for name, bits in runs.items()}
    assert found["best_value"] == min(losses.values())
    assert (tmp_path / "swept" / "report" / "index.html").exists()

    assert launched(untrained, tmp_path, *SEARCH, f"{total}=2") == runs, "there is nothing left to do"
    assert trials(tmp_path) == before

    with sqlite3.connect(tmp_path / "swept" / "study.db") as database:  # as a kill leaves it
        database.execute("update trials set state = 'RUNNING' where number = 1")
        database.execute("delete from trial_values where trial_id = 2")
    database.close()
    assert launched(untrained, tmp_path, *SEARCH, f"{total}=2") == runs
    assert trials(tmp_path) == before

    assert len(launched(untrained, tmp_path, *SEARCH, f"{total}=3")) == 3
    assert trials(tmp_path)[:2] == before


@pytest.mark.slow
def test_a_search_by_a_number_without_a_direction_is_told_one(untrained, tmp_path):
    given = ["objective=latent/active_units", "hydra.sweeper.direction=maximize", "evaluation.latent=true"]
    runs = launched(untrained, tmp_path, *SEARCH, *given, "hydra.sweeper.n_trials.total=1")
    (results,) = (json.loads(bits["results.json"]) for bits in runs.values())
    found = yaml.safe_load((tmp_path / "swept" / "optimization_results.yaml").read_text())
    assert found["best_value"] == results["latent"]["active_units"]


def test_a_search_says_which_of_its_trials_is_best(tmp_path, capsys):
    """Not which run of the folder: a grid's or another study's may have other epochs."""
    mine, other = write_run(tmp_path, beta=0.5), write_run(tmp_path, beta=1.0)
    write_run(tmp_path, beta=9.0, state="failed")
    trials = tuple(
        Trial(n, "complete", run.name, {"beta.value": n, "optimizer.lr": 0.1}, (value,))
        for n, run, value in ((0, mine, 7.0), (1, other, 8.0))
    )
    record = Record(("fid",), ("minimize",), "TPESampler", trials, (0,), ())
    search.conclude(tmp_path, record, write_report)
    said = capsys.readouterr().out
    assert re.search(rf"best fid: 7\.0000 with beta=0, optimizer.lr=0.1, .*/{mine.name}\n", said), said
    assert "2 complete, 1 failed" in said
    assert "report/index.html" in said
    search.conclude(tmp_path, record._replace(front=()), write_report)
    assert "no trial is complete" in capsys.readouterr().out


@pytest.mark.slow
def test_a_trial_that_cannot_be_composed_fails_and_the_search_goes_on(untrained, tmp_path):
    space = ["prior=choice(mixture,standard)", "prior.num_components=choice(4,8)", "hydra/sweeper=optuna"]
    launched(untrained, tmp_path, *space, "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=5")
    (record,) = read_studies(tmp_path / "swept").values()
    states = {trial.state: trial.params["prior"] for trial in record.trials}
    assert states == {"complete": "mixture", "fail": "standard"}


@pytest.mark.slow
def test_all_trials_failing_is_an_error(untrained, tmp_path):
    space = ["optimizer.lr=choice(1e9,1e8)", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"]
    done = untrained.train("-m", *space, *QUICK, f"output_root={tmp_path}")
    assert done.status == 1
    assert "none of 2 trials is complete, the last failed with: " in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_numbers_that_were_measured_otherwise_are_refused(untrained, tmp_path):
    bound = ["objective=iwae", "hydra.sweeper.n_trials=1", "evaluation.iwae.num_images=8"]
    launched(untrained, tmp_path, *SEARCH, *bound, "evaluation.iwae.num_samples=4")
    again = [*SEARCH, *bound, "evaluation.iwae.num_samples=8", *QUICK, f"output_root={tmp_path}"]
    refused(untrained.train("-m", *again), "objective iwae: 'test/iwae_8', but the study iwae was begun with")


@pytest.mark.slow
def test_a_study_of_optuna_2_is_continued(untrained, tmp_path):
    (tmp_path / "swept").mkdir()
    with sqlite3.connect(tmp_path / "swept" / "study.db") as database:
        database.executescript((Path(__file__).parents[1] / "search" / "optuna_2_10.sql").read_text())
    database.close()
    space = ["latent_dim=2,10", "trainer.patience=int(interval(1,5))", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    launched(untrained, tmp_path, *SEARCH, *space, "hydra.sweeper.n_trials.total=5")
    (record,) = read_studies(tmp_path / "swept").values()
    assert [trial.state for trial in record.trials] == ["complete"] * 5
    assert record.trials[3].params["beta.value"] == 2.710763078387765


def test_a_search_has_no_dry_run(untrained, tmp_path):
    done = untrained.train("-m", *SEARCH, *QUICK, "dry_run=true", f"output_root={tmp_path}/new")
    refused(done, "dry_run: a search chooses each run by the results of those before")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_failed_trial_does_not_end_the_search(untrained, tmp_path):
    optuna = pytest.importorskip("optuna")
    (tmp_path / "swept").mkdir()
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/swept/study.db", study_name="neg_elbo")
    for lr in (1e9, 1e-3):
        study.enqueue_trial({"optimizer.lr": lr})
    search = ["optimizer.lr=choice(1e-3,1e9)", "hydra/sweeper=optuna"]
    launched(untrained, tmp_path, *search, "hydra.sweeper.n_trials=2")
    assert [state for state, _ in trials(tmp_path)] == ["FAIL", "COMPLETE"]


# --- two objectives -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_front_of_two_objectives_is_that_of_the_stored_results(untrained, tmp_path):
    given = ["objective=[neg_elbo,latent/active_units]", "hydra.sweeper.direction=[minimize,maximize]"]
    given += ["latent_dim=int(interval(1,9))", "evaluation.latent=true", "hydra/sweeper/sampler=nsga2"]
    runs = launched(untrained, tmp_path, *SEARCH, *given, "hydra.sweeper.n_trials.total=6")
    values = {}
    for name, bits in runs.items():
        results = json.loads(bits["results.json"])
        values[name] = results["test"]["neg_elbo"], -results["latent"]["active_units"]
    front = {
        n
        for n, (a, b) in values.items()
        if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in values.values())
    }
    record = read_studies(tmp_path / "swept")["neg_elbo,latent/active_units"]
    assert {record.trials[number].run for number in record.front} == front
    told = yaml.safe_load((tmp_path / "swept" / "optimization_results.yaml").read_text())
    assert {(a, -b) for a, b in (each["values"] for each in told["solutions"])} == {values[name] for name in front}
    page = (tmp_path / "swept" / "report" / "index.html").read_text()
    assert "Two objectives" in page
    assert "Pareto front" in page


WRONG = {
    "objective=[neg_elbo,neg_elbo]": "objective: neg_elbo, neg_elbo: one is named twice",
    "objective=[neg_elbo,elbo]": "objective: 'elbo' is not one of",
    "objective=[]": "objective: ",
    "hydra.sweeper.direction=[minimize,maximize]": "hydra.sweeper.direction: 2 given for 1 objectives (neg_elbo)",
    "hydra.sweeper.direction=up": "hydra.sweeper.direction: 'up' is not one of minimize, maximize",
    "hydra.sweeper.n_trials.total=0": "hydra.sweeper.n_trials.total: 0 is not a whole number >= 1",
    "hydra.sweeper.n_trials=-1": "hydra.sweeper.n_trials: -1 is not a whole number >= 0",
    "hydra.sweeper.n_jobs=0": "hydra.sweeper.n_jobs: 0 is not a whole number >= 1",
    "hydra.sweeper.max_failure_rate=2": "hydra.sweeper.max_failure_rate: 2 is not a finite number >= 0 and <= 1",
    "hydra.sweeper.sampler=tpee": "hydra.sweeper.sampler: 'tpee' is no sampler; choose from cmaes, gp, nsga2",
    "hydra.sweeper.pruner=medium": "hydra.sweeper.pruner: 'medium' is no pruner; choose from halving",
    "hydra.sweeper.sampler._target_=os.system": "hydra.sweeper.sampler._target_: 'os.system' is not the name",
    "hydra.sweeper.sampler.sed=1": "hydra.sweeper.sampler.sed: ",
    "hydra.sweeper.storage=sqlite:///x": "hydra.sweeper.storage: ",
    "hydra.sweeper.pruner=median objective=[neg_elbo,test/recon]": "hydra.sweeper.pruner: which run falls behind",
    "hydra.sweeper.pruner=median hydra/launcher=stacked": "hydra.sweeper.pruner: runs of StackedLauncher",
    "hydra.sweeper.sampler.n_startup_trials=abc": "hydra.sweeper.sampler.n_startup_trials: 'abc' is not a whole",
    "hydra.sweeper.n_trials.total=null": "hydra.sweeper.n_trials.total: null is not a whole number >= 1",
    "hydra.sweeper.params=5": "hydra.sweeper.params: 5 gives no keys",
    "hydra.sweeper.n_jobs=1,2": "hydra.sweeper.n_jobs: several values; give one",
    "sweep_name=../x": "sweep_name: '../x' is not a name of letters",
    "sweep_name=.": "sweep_name: ",
    "hydra.sweeper.sampler=3": "hydra.sweeper.sampler: 3 is no sampler",
    "hydra/sweeper/sampler=cmaes": "hydra.sweeper.sampler: cmaes needs one objective, and two or more keys",
    "beta=1": "hydra/sweeper: the search varies no key; write interval(0.5,4)",
    "beta=interval(4,1)": "beta.value: interval(4",
    "model=glob(nosuch*)": "model: glob(nosuch*) finds nothing; write interval(0.5,4)",
}


@pytest.mark.parametrize("overrides", WRONG)
@pytest.mark.one_in(6)
def test_a_wrong_setting_is_one_line_and_leaves_nothing(overrides, untrained, tmp_path):
    done = untrained.train("-m", *SEARCH, *QUICK, f"output_root={tmp_path}", *overrides.split())
    refused(done, WRONG[overrides])
    assert not list(tmp_path.iterdir())
    assert not (tmp_path.parent / "x").exists()


def test_a_search_in_which_no_trial_has_a_run_says_why(untrained, tmp_path):
    space = ["latent_dim.value=interval(2.5,2.6)", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"]
    done = untrained.train("-m", *space, *QUICK, f"output_root={tmp_path}")
    assert done.status == 1
    last = done.stderr.splitlines()[-1]
    assert re.search(
        "none of 2 trials is complete, the last failed with: latent_dim.value: 2.5.* is not a whole", last
    )


@pytest.mark.slow
def test_a_number_that_complete_runs_lack_is_measured_and_the_same_trial_goes_on(untrained, tmp_path):
    """The runs of one search are those of another, by a number that the first did not measure."""
    launched(untrained, tmp_path, *SEARCH, "hydra.sweeper.n_trials.total=1")
    other = [*SEARCH, "objective=iwae", "evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=8"]
    other += ["hydra.sweeper.n_trials.total=2"]
    done = untrained.train("-m", *other, *QUICK, f"output_root={tmp_path}")
    assert done.status == 1
    last = done.stderr.splitlines()[-1]
    told = re.search(
        r"complete, but its results lack iwae; measure the runs: python evaluate.py (run=\S+), with", last
    )
    assert told, last
    (first,) = (trial for trial in read_studies(tmp_path / "swept")["iwae"].trials)
    assert first.state == "waiting"
    measured = call("evaluate.py", told.group(1), "evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=8")
    assert measured.status == 0, measured
    launched(untrained, tmp_path, *other)
    again, _ = read_studies(tmp_path / "swept")["iwae"].trials
    assert again == first._replace(state="complete", values=again.values)


# --- runs that are ended early ------------------------------------------------------------------------------

PRUNED = [
    "optimizer.lr=choice(1e-9,1e-2)",  # one that learns, and one that does not
    "hydra/sweeper=optuna",
    "hydra/sweeper/sampler=random",
    "hydra/sweeper/pruner=median",
    "hydra.sweeper.pruner.n_startup_trials=1",
    "hydra.sweeper.pruner.n_warmup_steps=2",
    "hydra.sweeper.sampler.seed=4",
    "trainer.epochs=4",
    "seed=range(0,9)",
    "hydra.sweeper.n_trials.total=5",
]


@pytest.fixture(scope="module")
def pruned(untrained, tmp_path_factory):
    """A finished search in which runs were ended early."""
    folder = tmp_path_factory.mktemp("pruned")
    launched(untrained, folder, *PRUNED)
    return folder


def test_runs_that_fall_behind_are_ended_and_said_to_be(pruned):
    (record,) = read_studies(pruned / "swept").values()
    states = {trial.state for trial in record.trials}
    assert states == {"complete", "pruned"}
    for trial in record.trials:
        run = RunDirectory(pruned / "swept" / trial.run)
        history = run.read_history()
        if trial.state == "complete":
            assert len(history) == 4
            continue
        assert trial.params["optimizer.lr"] == 1e-9
        assert 1 < len(history) < 4
        status = run.read_status()
        assert status["state"] == "pruned"
        assert re.match(rf"pruned after epoch {len(history)} of 4: its validation −ELBO of \d", status["error"])
        assert not run.results.exists()
        assert run.last.exists()
    page = (pruned / "swept" / "report" / "table.md").read_text()
    number = sum(trial.state == "pruned" for trial in record.trials)
    assert (
        f"{number} run{'s' * (number > 1)} ended early by the search's pruner: in none of these numbers." in page
    )
    said = call("-m", "fmvae.report", "status", str(pruned / "swept"))
    assert f"{number} pruned" in said.stdout
    assert "to finish it: python train.py " in said.stdout


def test_the_judgements_are_those_of_the_median_by_hand(pruned):
    """A run ends when its best value so far is worse than the median of the others' best at that epoch."""
    (record,) = read_studies(pruned / "swept").values()
    rows = {
        trial.number: [row["val/neg_elbo"] for row in RunDirectory(pruned / "swept" / trial.run).read_history()]
        for trial in record.trials
    }
    complete: list[int] = []
    for trial in record.trials:
        mine, ended = rows[trial.number], None
        for epoch in range(2, 4):  # after the epoch of warm-up, and before the last
            others = sorted(rows[number][epoch - 1] for number in complete)
            if not others or epoch > len(mine):
                break
            middle = len(others) // 2
            median = others[middle] if len(others) % 2 else (others[middle - 1] + others[middle]) / 2
            if min(mine[:epoch]) > median:
                ended = epoch
                break
        assert (ended is not None) == (trial.state == "pruned"), trial
        assert ended in (None, len(mine))
        complete += [trial.number] if trial.state == "complete" else []


@pytest.mark.slow
def test_a_pruned_run_is_finished_by_its_command_and_is_that_of_no_search(pruned, untrained, tmp_path):
    (record,) = read_studies(pruned / "swept").values()
    name = next(trial.run for trial in record.trials if trial.state == "pruned")
    run = RunDirectory(pruned / "swept" / name)
    command = shlex.split(run.read_status()["error"].partition("to finish it: ")[2])
    assert command[:2] == ["python", "train.py"]
    assert warmed().call("train.py", *command[2:]).status == 0
    assert run.read_status()["state"] == "complete"
    alone = [f"output_root={tmp_path}" if part.startswith("output_root=") else part for part in command[2:]]
    assert warmed().call("train.py", *alone).status == 0
    other = RunDirectory(tmp_path / "swept" / name)
    assert run.results.read_bytes() == other.results.read_bytes()
    assert run.metrics.read_bytes() == other.metrics.read_bytes()


@pytest.mark.slow
def test_a_search_with_a_pruner_that_is_continued_has_the_same_trials(pruned, untrained, tmp_path):
    launched(untrained, tmp_path, *PRUNED[:-1], "hydra.sweeper.n_trials=2")
    launched(untrained, tmp_path, *PRUNED[:-1], "hydra.sweeper.n_trials=3")
    whole, parts = (read_studies(folder / "swept")["neg_elbo"] for folder in (pruned, tmp_path))
    assert parts.trials == whole.trials


# --- others -------------------------------------------------------------------------------------------------


def test_a_second_search_at_the_same_time_is_refused(untrained, tmp_path):
    with opened(tmp_path / "swept"):
        done = untrained.train("-m", *SEARCH, *QUICK, f"output_root={tmp_path}")
    assert done.status == 1
    assert "swept: this search is held by process" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("swept/base-*"))


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        (
            "sys.modules['optuna'] = None",
            "Optuna is not installed; install it: in the checkout, pip install -e '.[optuna]'",
        ),
        (
            "import optuna; optuna.__version__ = '2.10.1'",
            "Optuna 2.10.1 is too old; install it: in the checkout, pip install -e '.[optuna]'",
        ),
    ],
)
@pytest.mark.one_in(2)
def test_without_optuna_one_line_says_what_to_install(hidden, said, untrained, tmp_path):
    code = (
        f"import runpy, sys; {hidden}; sys.argv[0] = 'train.py'; runpy.run_path('train.py', run_name='__main__')"
    )
    done = call("-c", code, "-m", "beta=interval(0.5,4)", "hydra/sweeper=optuna", f"output_root={tmp_path}")
    refused(done, f"hydra/sweeper=optuna: {said}")
    assert not list(tmp_path.iterdir())
