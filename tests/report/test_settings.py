"""Runs that differ in the seed alone are one setting; its mean and deviation are the statistics module's."""

import statistics
from pathlib import Path

import pytest

from fmvae.report.collect import Run, collect
from fmvae.report.settings import curves_of, differing, label, particulars, settings_of, shown, telling
from fmvae.runs.directory import RunDirectory
from tests.report.fakes import FACTOR, TC, VAMP, write_run


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
    assert telling(collect([tmp_path])).keys == ["optimizer.lr"]  # that conv has no hidden_dim is said by its name
    write_run(tmp_path, "model.hidden_dim=100")
    runs = collect([tmp_path])
    assert telling(runs).keys == ["model.hidden_dim", "optimizer.lr"]
    assert [particulars(run, telling(runs)).split(", ")[-1] for run in runs] == ["lr 0.001", "lr 0.01", "lr 0.001"]


def test_differing_keys_are_those_not_shared_by_all():
    assert differing([{"a": 1, "b": 1, "c": None}, {"a": 1, "b": 2, "c": None}, {"a": 1, "b": 1}]) == ["b", "c"]
    assert differing([{"a": 1}]) == []
    assert differing([]) == []


def test_labels_are_short_while_they_are_clear():
    keys = ["optimizer.lr", "likelihood._target_", "beta.fraction", "scheduler.fraction"]
    assert [label(key, keys) for key in keys] == ["lr", "likelihood", "beta.fraction", "scheduler.fraction"]
    config = {"likelihood._target_": "fmvae.objectives.Gaussian", "optimizer.lr": 0.0010, "trainer.patience": None}
    run = Run(RunDirectory(Path("x")), "x", "complete", config=config)
    assert [shown(key, run) for key in (*config, "other")] == ["Gaussian", "0.001", "null", ""]
    assert label("loss._name_", ["loss._name_", "loss.gamma"]) == "loss"


def test_a_curve_is_what_differs_in_beta_alone_and_runs_along_it(tmp_path):
    for beta in (10.0, 0.0, 2.0):
        write_run(tmp_path, beta=beta)
        write_run(tmp_path, "beta=warmup", beta=beta, z=10)
    write_run(tmp_path, "trainer.epochs=3")
    curves = {(curve.family, curve.latent_dim): curve for curve in curves_of(read(tmp_path))}
    assert sorted(curves) == [("base, epochs 3", 2), ("base, epochs 30", 2), ("base, warmup, epochs 30", 10)]
    betas = [setting.first.beta for setting in curves["base, warmup, epochs 30", 10].settings]
    assert betas == [0.0, 2.0, 10.0]


def curves(folder):
    """Curves as (family, z, key of the strength, strengths), sorted."""
    return sorted(
        (c.family, c.latent_dim, c.strength, [*map(c.value, c.settings)]) for c in curves_of(read(folder))
    )


def test_a_curve_runs_along_the_one_number_that_its_loss_varies_where_beta_does_not(tmp_path):
    for gamma in (40.0, 5.0, 10.0):
        for seed in range(2):
            write_run(tmp_path, seed=seed, loss=FACTOR | {"gamma": gamma})
    assert curves(tmp_path) == [("base", 2, "loss.gamma", [5.0, 10.0, 40.0])]
    for beta in (8.0, 1.0):
        write_run(tmp_path, beta=beta)
        write_run(tmp_path, beta=beta, loss=TC)
    assert curves(tmp_path) == [
        ("base, elbo", 2, "beta.value", [1.0, 8.0]),
        ("base, factor", 2, "loss.gamma", [5.0, 10.0, 40.0]),
        ("base, tc", 2, "beta.value", [1.0, 8.0]),
    ]


def test_if_beta_or_several_numbers_vary_the_strength_is_beta(tmp_path):
    for gamma in (5.0, 10.0):
        for beta in (1.0, 2.0):
            write_run(tmp_path / "beta", beta=beta, loss=FACTOR | {"gamma": gamma})
        for lr in ("1e-3", "1e-2"):
            write_run(tmp_path / "lr", f"optimizer.lr={lr}", loss=FACTOR | {"gamma": gamma})
    assert curves(tmp_path / "beta") == [
        ("base, gamma 10", 2, "beta.value", [1.0, 2.0]),
        ("base, gamma 5", 2, "beta.value", [1.0, 2.0]),
    ]
    assert [(family, strength, values) for family, _, strength, values in curves(tmp_path / "lr")] == [
        (f"base, gamma {gamma}, lr {lr}", "beta.value", [1.0]) for gamma in (10, 5) for lr in ("0.001", "0.01")
    ]


def test_what_is_no_number_tells_curves_apart_and_z_is_no_strength(tmp_path):
    for z in (2, 10):
        for estimate in ("mss", "mws"):
            for beta in (1.0, 2.0):
                write_run(tmp_path, z=z, beta=beta, loss=TC | {"estimate": estimate})
    assert curves(tmp_path) == [
        (f"base, estimate {estimate}", z, "beta.value", [1.0, 2.0]) for estimate in ("mss", "mws") for z in (2, 10)
    ]
    for z in (2, 10):
        write_run(tmp_path / "z", z=z, loss=FACTOR | {"latent_dim": z})
    assert curves(tmp_path / "z") == [("base", z, "beta.value", [1.0]) for z in (2, 10)]


def test_a_number_is_told_of_the_loss_whose_runs_differ_in_it(tmp_path):
    """``gamma`` is one thing in FactorVAE and another one in beta-TCVAE."""
    for gamma in (5.0, 10.0):
        write_run(tmp_path, loss=FACTOR | {"gamma": gamma})
    write_run(tmp_path, loss=TC)
    write_run(tmp_path)
    runs = collect([tmp_path])
    told = telling(runs)
    assert told.keys == ["loss._name_", "loss.gamma"]
    assert [particulars(run, told) for run in runs] == ["elbo", "factor, gamma 5", "factor, gamma 10", "tc"]
    write_run(tmp_path, loss=TC | {"gamma": 2.0})
    runs = collect([tmp_path])
    assert [particulars(run, telling(runs)) for run in runs][-2:] == ["tc, gamma 1", "tc, gamma 2"]


def test_data_are_told_by_their_class_and_their_keys_among_runs_of_it(tmp_path):
    write_run(tmp_path, "data=fashion_factors")
    write_run(tmp_path, "data=sprites")
    runs = collect([tmp_path])
    assert [particulars(run, telling(runs)) for run in runs] == ["data FashionFactors", "data Sprites"]
    write_run(tmp_path, "data=sprites", "data.val_size=100")
    runs = collect([tmp_path])
    assert sorted(particulars(run, telling(runs)) for run in runs) == [
        "data FashionFactors",
        "data Sprites, val_size 100",
        "data Sprites, val_size 5000",
    ]


def test_a_prior_is_told_by_its_word(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, prior=VAMP)
    write_run(tmp_path, loss={"_target_": "mine.losses.HingeLoss"})
    runs = collect([tmp_path])
    told = [particulars(run, telling(runs)) for run in runs]
    assert sorted(told) == ["elbo, prior standard", "elbo, prior vamp", "hinge, prior standard"]
