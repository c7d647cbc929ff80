"""Studies alone, without training: what is asked for, what is kept, and what of earlier versions is read."""

import errno
import itertools
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

pytest.importorskip("optuna")

from optuna.exceptions import StorageInternalError

from fmvae.config.space import Choice, Interval
from fmvae.errors import ConfigError, HeldError, RunError, UnmeasuredError
from fmvae.experiments.search_target import Direction
from fmvae.sweeps.database import opened
from fmvae.sweeps.options import check_sampler, made, settings_of
from fmvae.sweeps.record import read_studies
from fmvae.sweeps.search import Limits, Prepared, run_search
from fmvae.sweeps.study import Study

SPACE = {"beta": Interval(0.5, 4.0), "lr": Interval(1e-4, 1e-2, log=True), "z": Choice((2, 10, 32))}
SAMPLERS = ("tpe", "gp", "cmaes", "random", "nsga2")
OLD = Path(__file__).with_name("optuna_2_10.sql")


class Killed(BaseException):
    pass


def prepared(params):
    job = [f"{key}={value}" for key, value in params.items()]
    return Prepared(job, " ".join(job), {"trainer.epochs": 1})


def go(folder, limits, launch, sampler="random", prepare=prepared, objectives=1):
    """Search; return the states of all trials, and what was wrong."""
    with opened(folder) as storage:
        directions: list[Direction] = ["minimize"] * objectives
        study = Study(storage, "s", directions, settings_of("sampler", sampler), SPACE)
        problem = run_search(study, folder, ["a", "b"][:objectives], limits, launch, prepare)
        return [trial.state.name for trial in study.optuna.get_trials()], problem


def valued(jobs, first):
    return [cost(job) for job in jobs]


def broken(jobs, first):
    return [ValueError("broken") for _ in jobs]


def cost(job, objectives=1):
    """A smooth function of what a job was given."""
    given = dict(part.split("=") for part in job)
    beta, lr, z = float(given["beta"]), float(given["lr"]), float(given["z"])
    values = ((beta - 2) ** 2 + z / 100, beta + 1000 * lr)
    return values[:objectives]


def search(
    folder, sampler="tpe", total=14, stop_after=None, objectives=1, at_a_time=1, stop_between=None, **settings
):
    """Search, and return all trials; ``stop_after`` so many launches, the process ends while jobs run."""
    launches = itertools.count()

    def launch(jobs, first):
        if next(launches) == stop_after:
            raise Killed
        return [cost(job, objectives) for job in jobs]

    given = {**settings_of("sampler", sampler), **settings}
    with opened(folder) as storage:
        directions: list[Direction] = ["minimize"] * objectives
        study = Study(storage, "s", directions, given, SPACE)
        told, tell = itertools.count(), study.tell

        def dying(*arguments):  # while it stores the results of jobs that ran at the same time
            if next(told) == stop_between:
                raise Killed
            tell(*arguments)

        limits = Limits(total, None, at_a_time, 1.0)
        with suppress(Killed), patch.object(study, "tell", dying):
            run_search(study, folder, ["a", "b"][:objectives], limits, launch, prepared)
        return [(t.number, t.params, t.values, t.state.name) for t in study.optuna.get_trials()]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.one_in(5)
def test_a_search_that_was_killed_and_continued_has_the_same_trials(sampler, tmp_path):
    few = {"total": 8, **({"n_startup_trials": 3} if sampler in ("tpe", "gp", "cmaes") else {})}
    whole = search(tmp_path / "whole", sampler, **few)
    for stop, begun in ((1, 2), (4, 6)):
        partial = search(tmp_path / "killed", sampler, **few, stop_after=stop)
        assert (len(partial), partial[-1][3]) == (begun, "RUNNING")
    assert search(tmp_path / "killed", sampler, **few) == whole
    assert [state for *_, state in whole] == ["COMPLETE"] * 8


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.slow
def test_so_has_one_by_two_objectives_with_three_trials_at_a_time(sampler, tmp_path):
    usual = (
        {"objectives": 2, "at_a_time": 3, "total": 30, "population_size": 6}
        if sampler == "nsga2"
        else {"objectives": 2, "at_a_time": 3, "total": 30}
    )
    whole = search(tmp_path / "whole", sampler, **usual)
    search(tmp_path / "killed", sampler, **usual, stop_after=4)
    search(tmp_path / "killed", sampler, **usual, stop_between=1)
    search(tmp_path / "killed", sampler, **usual, stop_between=5)
    assert search(tmp_path / "killed", sampler, **usual) == whole


def test_negative_control_without_seeds_of_their_own_the_trials_differ(tmp_path):
    first = search(tmp_path / "first", "random", total=1)
    assert search(tmp_path / "second", "random", total=1) == first
    for name, seed in (("none", None), ("other", 1)):
        assert search(tmp_path / name, "random", total=1, seed=seed) != first


def test_the_front_is_that_of_brute_force(tmp_path):
    trials = search(tmp_path, "random", objectives=2, total=15)
    values = [tuple(found) for _, _, found, _ in trials]
    front = [
        number
        for number, _, (a, b), _ in trials
        if not any((c <= a and d <= b and (c, d) != (a, b)) for c, d in values)
    ]
    assert list(read_studies(tmp_path)["s"].front) == front
    assert 2 <= len(front) < 15


def test_the_total_counts_all_commands_and_a_failed_trial_counts_in_none(tmp_path):
    failing = iter([True, False, True, *[False] * 9])

    def launch(jobs, first):
        return [ValueError("no") if next(failing) else cost(job) for job in jobs]

    total = Limits(3, None, 1, 1.0)
    assert go(tmp_path, total, launch) == (["FAIL", "COMPLETE", "FAIL"], None)
    assert go(tmp_path, total, launch)[0].count("COMPLETE") == 3
    assert len(go(tmp_path, total, launch)[0]) == 5, "nothing is left to do"
    assert len(go(tmp_path, Limits(None, 2, 1, 1.0), launch)[0]) == 7


def test_too_many_failures_end_it_in_one_line(tmp_path):
    states, problem = go(tmp_path, Limits(8, None, 2, 0.5), broken)
    assert states == ["FAIL", "FAIL"]
    assert "2 of 2 trials failed, the last with: broken; " in str(problem)
    assert "max_failure_rate=1" in str(problem)


def test_a_search_without_any_value_is_no_success(tmp_path):
    states, problem = go(tmp_path, Limits(2, None, 1, 1.0), broken)
    assert states == ["FAIL", "FAIL"]
    assert "none of 2 trials is complete, the last failed with: broken; correct it" in str(problem)
    assert go(tmp_path, Limits(1, None, 1, 1.0), valued)[1] is None


@pytest.mark.parametrize("values", [(float("nan"),), (float("inf"),), (1.0, 2.0), ()])
def test_what_is_no_value_is_a_failed_trial(values, tmp_path):
    assert go(tmp_path, Limits(1, None, 1, 1.0), lambda jobs, first: [values])[0] == ["FAIL"]
    (trial,) = read_studies(tmp_path)["s"].trials
    assert (trial.state, trial.values) == ("fail", ())


def test_a_trial_whose_config_is_wrong_fails_alone(tmp_path):
    """It is not launched, nor asked for again."""
    tried, launched = [], []

    def prepare(params):
        tried.append(params)
        if len(tried) == 1:
            raise ConfigError("z", "2 is wrong", "give another")
        return prepared(params)

    def launch(jobs, first):
        launched.extend(jobs)
        return valued(jobs, first)

    assert go(tmp_path, Limits(2, None, 2, 1.0), launch, prepare=prepare) == (["FAIL", "COMPLETE"], None)
    assert launched == [prepared(tried[1]).overrides]
    assert go(tmp_path, Limits(2, None, 2, 1.0), launch, prepare=prepare)[0] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_equal_trials_of_a_batch_are_launched_once(tmp_path):
    launched = []

    def launch(jobs, first):
        launched.append(len(jobs))
        return [(float(number),) for number, _ in enumerate(jobs, first + 3)]

    same = Prepared(["z=2"], "z2", {})
    assert go(tmp_path, Limits(3, None, 3, 1.0), launch, prepare=lambda params: same) == (["COMPLETE"] * 3, None)
    assert launched == [1]
    assert [trial.values for trial in read_studies(tmp_path)["s"].trials] == [(3.0,)] * 3


def test_a_run_that_another_process_holds_is_no_failure(tmp_path):
    held = HeldError("z2", "this run is held by process 1", "wait")
    states, problem = go(tmp_path, Limits(2, None, 1, 1.0), lambda jobs, first: [held])
    assert states == ["WAITING"]
    assert str(problem) == "z2: this run is held by process 1; repeat the command when it has ended"
    assert go(tmp_path, Limits(2, None, 1, 1.0), valued)[0] == ["COMPLETE"] * 2


UNMEASURED = UnmeasuredError("base-1", "complete, but its results lack fid", "measure it")
FULL = OSError(errno.ENOSPC, "No space left on device", "last.safetensors")


@pytest.mark.parametrize(
    ("postponing", "said"),
    [
        (
            FULL,
            "last.safetensors: No space left on device; check the path, .*, and repeat the command to continue",
        ),
        (ConnectionResetError("reset"), "connection: reset; check .*, and repeat the command to continue"),
        (UNMEASURED, "base-1: complete, but its results lack fid; measure it, and repeat the command to continue"),
    ],
)
def test_what_says_nothing_of_a_trials_values_does_not_use_it_up(postponing, said, tmp_path):
    """A full disk ends the search; when there is space, it has the trials of one that was not interrupted."""
    launches = itertools.count()

    def launch(jobs, first):
        return [postponing] * len(jobs) if next(launches) == 2 else valued(jobs, first)

    states, problem = go(tmp_path / "a", Limits(6, None, 1, 1.0), launch, "tpe")
    assert states == ["COMPLETE", "COMPLETE", "WAITING"]
    assert re.match(said, str(problem)), problem
    assert go(tmp_path / "a", Limits(6, None, 1, 1.0), launch, "tpe") == (["COMPLETE"] * 6, None)
    go(tmp_path / "b", Limits(6, None, 1, 1.0), valued, "tpe")
    assert read_studies(tmp_path / "a") == read_studies(tmp_path / "b")


@pytest.mark.parametrize(
    "error", [ValueError("diverged"), FileNotFoundError(errno.ENOENT, "no such file", "x.pt")]
)
def test_negative_control_a_trial_that_failed_by_its_values_is_used_up(error, tmp_path):
    launches = itertools.count()

    def launch(jobs, first):
        return [error] if next(launches) == 2 else valued(jobs, first)

    go(tmp_path / "a", Limits(6, None, 1, 1.0), launch, "tpe")
    go(tmp_path / "b", Limits(6, None, 1, 1.0), valued, "tpe")
    assert read_studies(tmp_path / "a") != read_studies(tmp_path / "b")


def test_a_launcher_that_stops_is_one_line_and_its_trials_come_first(tmp_path):
    launched = []

    def dies(jobs, first):
        raise OSError("a worker was killed")

    def launch(jobs, first):
        launched.extend(jobs)
        return valued(jobs, first)

    with pytest.raises(RunError, match=r"hydra.launcher: the launcher stopped \(a worker was killed\); repeat"):
        go(tmp_path, Limits(2, None, 2, 1.0), dies)
    assert go(tmp_path, Limits(2, None, 2, 1.0), launch) == (["COMPLETE", "COMPLETE"], None)
    assert len({tuple(job) for job in launched}) == 2


# --- refusals -----------------------------------------------------------------------------------------------


def study_of(folder, space=SPACE, directions=("minimize",), sampler="random"):
    with opened(folder) as storage:
        return Study(storage, "s", directions, settings_of("sampler", sampler), space)


def test_two_processes_refuse_each_other(tmp_path):
    with opened(tmp_path), pytest.raises(HeldError, match="this search is held by"), opened(tmp_path):
        pass


def test_another_space_or_other_directions_than_the_studys_are_refused(tmp_path):
    """Of most samplers, earlier trials of another space would count no more, without a word."""
    search(tmp_path, "random", total=2)
    begun = "but the study s was begun with"
    for change, said in (
        (
            {"z": Choice((2, 10))},
            f"z: choice(2,10), {begun} choice(2,10,32); give hydra.sweeper.study_name",
        ),
        ({"beta": Choice((1,))}, f"beta: choice(1), {begun} interval(0.5,4)"),
        ({"beta": Interval(0.5, 3.0)}, f"beta: interval(0.5,3), {begun} interval(0.5,4)"),
        ({"beta": Interval(0.5, 4.0, log=True)}, f"beta: tag(log,interval(0.5,4)), {begun} interval(0.5,4)"),
        ({"k": Interval(1, 4, whole=True)}, f"k: int(interval(1,4)), {begun} no values"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
            study_of(tmp_path, {**SPACE, **change})
    with pytest.raises(ConfigError, match=r"^lr: no values, but the study s was begun with tag\(log,"):
        study_of(tmp_path, {key: SPACE[key] for key in ("beta", "z")})
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.direction: maximize, but .* begun with minimize"):
        study_of(tmp_path, directions=("maximize",))
    study_of(tmp_path)


def test_runs_that_differ_in_what_is_not_varied_are_refused(tmp_path):
    usual = {"beta.value": 1.0, "trainer.epochs": 2, "data.sha256": "abc", "lr": 0.1}
    study = study_of(tmp_path)
    assert study.begun() is None
    study.begin({"beta": 1.0, "lr": 0.1, "z": 2}, usual)
    study.begin({"beta": 3.0, "lr": 0.2, "z": 2}, {})  # the first one counts
    study = study_of(tmp_path)
    assert study.begun() == {"beta": 1.0, "lr": 0.1, "z": 2}
    study.check_settings(usual)
    study.check_settings({**usual, "lr": 0.3})
    for key, value, said in (
        ("trainer.epochs", 3, "3, but the study s was begun with 2, "),
        ("lrs", True, "true, but"),
        ("data.sha256", "xyz", "'xyz', but the study s was begun with 'abc'"),
    ):
        with pytest.raises(ConfigError, match=rf"^{key}: {said}.*study_name=<name> to begin another"):
            study.check_settings({**usual, key: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"_target_": "optuna.samplers.TPSampler"},
            "sampler._target_: 'optuna.samplers.TPSampler' is not the name",
        ),
        ({"_target_": "os.system"}, "sampler._target_: 'os.system' is not the name of a sampler"),
        (
            {"_target_": "optuna.samplers.TPESampler", "sed": 1},
            "sampler.sed: .* does not take it; it takes .*seed",
        ),
        ({"_target_": "optuna.samplers.NSGAIISampler", "population_size": 1}, "sampler: .*population_size"),
        (
            {"_target_": "optuna.samplers.NSGAIISampler", "population_size": -1},
            "sampler.population_size: -1 is not",
        ),
        ({}, "sampler._target_: 'None' is not the name"),
    ],
)
def test_settings_that_no_sampler_takes_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^hydra.sweeper.{message}"):
        made("sampler", settings)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ConfigError, match="'tpee' is no sampler; choose from cmaes, gp, nsga2, random, tpe"):
        settings_of("sampler", "tpee")
    with pytest.raises(ConfigError, match="choose from halving, hyperband, median, none, percentile"):
        settings_of("pruner", "x")
    assert settings_of("pruner", "none") == settings_of("pruner", None) == {}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_that_is_offered_samples(name):
    check_sampler(settings_of("sampler", name), SPACE, 1)


@pytest.mark.parametrize("name", ["median", "percentile", "halving", "hyperband"])
def test_every_pruner_that_is_offered_can_be_made(name):
    made("pruner", settings_of("pruner", name))


@pytest.mark.parametrize(
    ("name", "change", "space", "objectives", "message"),
    [
        ("cmaes", {}, SPACE, 2, "^hydra.sweeper.sampler: cmaes needs one objective, and two or more keys"),
        ("cmaes", {}, {"beta": SPACE["beta"], "z": SPACE["z"]}, 1, "^hydra.sweeper.sampler: cmaes needs"),
        ("tpe", {"seed": "abc"}, SPACE, 1, "^hydra.sweeper.sampler.seed: 'abc' is no seed; give a whole number"),
        ("tpe", {"seed": -1}, SPACE, 1, "seed: -1 is no seed"),
        (
            "tpe",
            {"n_startup_trials": "abc"},
            SPACE,
            1,
            "sampler.n_startup_trials: 'abc' is not a whole number >= 0; correct it, or leave the key out$",
        ),
        ("tpe", {"n_startup_trials": None}, SPACE, 1, "sampler.n_startup_trials: null is not a value"),
        ("tpe", {"n_startup_trials": -1}, SPACE, 1, "sampler.n_startup_trials: -1 is not a whole number >= 0"),
        ("tpe", {"multivariate": 7}, SPACE, 1, "sampler.multivariate: 7 is not true or false"),
        ("cmaes", {"sigma0": "x"}, SPACE, 1, "sampler.sigma0: 'x' is not a finite number"),
    ],
)
def test_a_sampler_that_cannot_search_here_is_refused(name, change, space, objectives, message):
    with pytest.raises(ConfigError, match=message):
        check_sampler({**settings_of("sampler", name), **change}, space, objectives)


def test_what_is_neither_a_name_nor_settings_is_refused():
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.sampler: 3 is no sampler; give hydra/sweeper/sampler"):
        settings_of("sampler", 3)


# --- databases that others wrote ----------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.executescript(OLD.read_text())
    database.close()
    return tmp_path


def test_a_study_of_optuna_2_is_read_and_the_original_kept(old):
    before = (old / "study.db").read_bytes()
    space = {
        "beta.value": Interval(0.5, 4.0),
        "latent_dim.value": Choice((2, 10)),
        "trainer.patience": Interval(1, 5, whole=True),
        "optimizer.lr": Interval(1e-4, 1e-2, log=True),
    }
    with opened(old) as storage:
        study = Study(storage, "neg_elbo", ["minimize"], settings_of("sampler", "tpe"), space)
        done = study.of_state("COMPLETE")
        assert [trial.values[0] for trial in done] == [trial.params["beta.value"] ** 2 for trial in done]
        (trial,) = study.ask(1)  # the one that was interrupted, with its values
        assert (trial.number, trial.params["beta.value"]) == (3, 2.710763078387765)
    assert (old / "study-optuna2.db").read_bytes() == before
    with opened(old):  # and once only
        assert (old / "study-optuna2.db").read_bytes() == before
    assert sorted(path.name for path in old.iterdir() if path.suffix == ".db") == ["study-optuna2.db", "study.db"]


def test_a_conversion_that_was_interrupted_is_begun_anew(old, monkeypatch):
    before = (old / "study.db").read_bytes()
    monkeypatch.setattr("fmvae.sweeps.database.link", lambda *paths: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed), opened(old):
        pass
    assert (old / "study.db").read_bytes() == before
    monkeypatch.undo()
    with opened(old) as storage:
        assert len(storage.get_all_studies()) == 1


@pytest.mark.parametrize("content", ["no database", ""])
def test_a_damaged_study_is_named_and_left_as_it_is(content, tmp_path):
    path = tmp_path / "study.db"
    path.write_text(content)
    if not content:  # SQLite takes an empty file for a new database
        study_of(tmp_path)
        return
    with pytest.raises(RunError, match=r"study\.db: not a study's database .*; move it away"), opened(tmp_path):
        pass
    assert path.read_text() == content


@pytest.mark.parametrize(
    "damage",
    [
        "delete from trial_values",
        "update trial_params set distribution_json = '{}'",
        "update study_user_attributes set value_json = '5'",
        "update study_user_attributes set value_json = 'no json'",
        "update trial_user_attributes set value_json = '7' where key = 'run'",
        "drop table trial_values",
        "delete from study_directions",
    ],
)
def test_a_study_that_nobody_wrote_so_is_one_line_before_anything_is_trained(damage, tmp_path):
    go(tmp_path, Limits(2, None, 1, 1.0), valued)
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute(damage)
    database.close()
    launched = []
    with pytest.raises(RunError, match=r"study\.db: (damaged|not a study's database) \(.*\); move it away"):
        go(tmp_path, Limits(3, None, 1, 1.0), lambda jobs, first: launched.extend(jobs))
    assert not launched


def test_a_database_that_fails_while_runs_train_is_one_line_with_its_name(tmp_path):
    def launch(jobs, first):
        with sqlite3.connect(tmp_path / "study.db") as database:
            database.execute("drop table trial_values")
        database.close()
        return valued(jobs, first)

    with pytest.raises(RunError, match=r"study\.db: not a study's database \(no such table"):
        go(tmp_path, Limits(2, None, 1, 1.0), launch)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("database is locked", "in use by another program (database is locked); close that program, and repeat"),
        ("database or disk is full", "database or disk is full; check its permissions and the free space, and"),
        ("attempt to write a readonly database", "attempt to write a readonly database; check its permissions"),
        ("disk I/O error", "disk I/O error; check its permissions and the free space"),
        ("database disk image is malformed", "not a study's database (database disk image is malformed); move it"),
    ],
)
def test_a_healthy_database_is_not_to_be_moved_away(reason, said, tmp_path):
    def launch(jobs, first):
        raise StorageInternalError("An exception is raised during the commit.") from sqlite3.OperationalError(
            reason
        )

    with pytest.raises(RunError) as raised, opened(tmp_path):
        launch([], 0)
    assert f"study.db: {said}" in str(raised.value)


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "study.db").mkdir()
    with pytest.raises(RunError, match=r"study\.db: a folder, where a search has its database"), opened(tmp_path):
        pass


def test_a_trial_whose_values_were_being_chosen_is_given_up(tmp_path):
    study = study_of(tmp_path)
    study.optuna.ask()  # no values
    study.optuna.ask(fixed_distributions=study.space)
    again = study_of(tmp_path)
    assert [trial.state.name for trial in again.optuna.get_trials()] == ["FAIL", "WAITING"]


def test_another_programs_database_is_no_study(tmp_path):
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("create table version_info (a integer)")
    with pytest.raises(RunError, match=r"study\.db: not a study's database"), opened(tmp_path):
        pass


def test_a_study_of_a_later_optuna_is_refused(tmp_path):
    study_of(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("update alembic_version set version_num = 'v9.9.0.a'")
    with (
        pytest.raises(RunError, match=r"of a later version of Optuna \(its tables are v9.9.0.a\); move it"),
        opened(tmp_path),
    ):
        pass
