"""Runs that differ in the seed alone are one setting; its mean and deviation are the statistics module's."""

import statistics

import pytest

from fmvae.report.collect import collect
from fmvae.report.settings import curves_of, differing, label, particulars, settings_of, shown, telling
from tests.report.fakes import write_run


def read(folder):
    return settings_of(collect([folder]))


def test_means_and_deviations_are_those_of_the_statistics_module(tmp_path):
    values = [251.25, 249.5, 250.125, 256.0]
    for seed, value in enumerate(values):
        write_run(tmp_path, seed=seed, recon=value)
    (setting,) = read(tmp_path)
    found = setting.statistic("test/recon")
    assert found is not None
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.mean(values), rel=1e-14)
    assert found.sd == pytest.approx(statistics.stdev(values), rel=1e-14)
    assert found.sd != pytest.approx(statistics.pstdev(values), rel=1e-3)


def test_one_run_has_no_deviation_and_a_number_nobody_has_no_mean(tmp_path):
    write_run(tmp_path)
    (setting,) = read(tmp_path)
    found = setting.statistic("test/recon")
    assert found is not None
    assert (found.sd, found.n) == (None, 1)
    assert setting.statistic("test/nothing") is None


def test_a_number_that_only_some_runs_have_counts_those(tmp_path):
    for seed, fid in enumerate((8.0, None, 10.0)):
        write_run(tmp_path, seed=seed, fid=fid)
    (setting,) = read(tmp_path)
    found = setting.statistic("fid/resnet18/generation")
    assert found is not None
    assert (found.mean, found.n) == (9.0, 2)


def test_only_the_seed_joins_runs(tmp_path):
    for seed in range(2):
        for beta in (0.5, 1.0):
            for epochs in ("trainer.epochs=3", "trainer.epochs=4"):
                write_run(tmp_path, epochs, beta=beta, seed=seed)
    write_run(tmp_path, "trainer.epochs=3", beta=0.5, seed=2, state="failed")
    settings = read(tmp_path)
    assert len(settings) == 4
    assert [len(setting.runs) for setting in settings] == [2] * 4


def test_keys_that_tell_settings_apart(tmp_path):
    write_run(tmp_path, "optimizer.lr=0.01")
    write_run(tmp_path, "model=conv", z=10)
    assert telling(collect([tmp_path])) == ["optimizer.lr"]  # that conv has no hidden_dim is said by its name
    write_run(tmp_path, "model.hidden_dim=100")
    runs = collect([tmp_path])
    assert telling(runs) == ["model.hidden_dim", "optimizer.lr"]
    assert [particulars(run, telling(runs)).split(", ")[-1] for run in runs] == ["lr 0.001", "lr 0.01", "lr 0.001"]


def test_differing_keys_are_those_not_shared_by_all():
    assert differing([{"a": 1, "b": 1, "c": None}, {"a": 1, "b": 2, "c": None}, {"a": 1, "b": 1}]) == ["b", "c"]
    assert differing([{"a": 1}]) == []
    assert differing([]) == []


def test_labels_are_short_while_they_are_clear():
    keys = ["optimizer.lr", "likelihood._target_", "beta.fraction", "scheduler.fraction"]
    assert [label(key, keys) for key in keys] == ["lr", "likelihood", "beta.fraction", "scheduler.fraction"]
    config = {"likelihood._target_": "fmvae.objectives.Gaussian", "optimizer.lr": 0.0010, "trainer.patience": None}
    assert [shown(key, config) for key in (*config, "other")] == ["Gaussian", "0.001", "null", ""]


def test_a_curve_is_what_differs_in_beta_alone_and_runs_along_it(tmp_path):
    for beta in (10.0, 0.0, 2.0):
        write_run(tmp_path, beta=beta)
        write_run(tmp_path, "beta=warmup", beta=beta, z=10)
    write_run(tmp_path, "trainer.epochs=3")
    curves = {(curve.family, curve.latent_dim): curve for curve in curves_of(read(tmp_path))}
    assert sorted(curves) == [("base, epochs 3", 2), ("base, epochs 30", 2), ("base, warmup, epochs 30", 10)]
    betas = [setting.first.beta for setting in curves["base, warmup, epochs 30", 10].settings]
    assert betas == [0.0, 2.0, 10.0]
