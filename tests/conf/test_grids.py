"""The jobs of a sweep with grids, and what is refused."""

import itertools

import pytest
import yaml

from fmvae.config import grids as expansion
from fmvae.config.composing import sweep_jobs
from fmvae.config.grids import GRIDS, PARAMS, blame, check_form, jobs_of
from fmvae.config.project import PROJECT_ROOT
from fmvae.errors import ConfigError

FAMILY = yaml.safe_load((PROJECT_ROOT / "sweeps" / "sweep" / "family.yaml").read_text())["hydra"]["sweeper"]
SEEDS = {"seed": "0,1"}
TWO = [{"loss": "elbo", "beta.value": "1,4"}, {"loss": "factor_vae", "loss.gamma": "5,20"}]


def said(params, grids, *arguments: str) -> list[str]:
    return [" ".join(job) for job in jobs_of(params, grids, arguments)]


def test_the_family_has_72_jobs_in_the_order_of_its_file():
    """Against a second way to list them."""
    expected = []
    for grid in FAMILY["grids"]:
        values = FAMILY["params"] | grid
        expected += itertools.product(*([f"{k}={v}" for v in text.split(",")] for k, text in values.items()))
    assert [tuple(job) for job in sweep_jobs("family")] == [("sweep=family", *job) for job in expected]
    assert len(set(expected)) == len(expected) == 72


def test_a_grid_is_combined_with_params_and_not_with_other_grids():
    assert said(SEEDS, TWO) == [
        "seed=0 loss=elbo beta.value=1",
        "seed=0 loss=elbo beta.value=4",
        "seed=1 loss=elbo beta.value=1",
        "seed=1 loss=elbo beta.value=4",
        "seed=0 loss=factor_vae loss.gamma=5",
        "seed=0 loss=factor_vae loss.gamma=20",
        "seed=1 loss=factor_vae loss.gamma=5",
        "seed=1 loss=factor_vae loss.gamma=20",
    ]


def test_without_grids_it_is_every_combination_of_the_values():
    assert said({"beta": "1,4"}, None, "seed=0,1") == [
        f"beta.value={beta} seed={seed}" for beta in (1, 4) for seed in (0, 1)
    ]
    assert said(None, None, "seed=0") == ["seed=0"]
    assert said(SEEDS, [{}]) == ["seed=0", "seed=1"]


def test_a_grids_key_replaces_that_of_params_and_each_job_is_there_once():
    assert said(SEEDS, [{"seed": "1,2"}, {"seed": "2,3"}]) == ["seed=1", "seed=2", "seed=3"]


@pytest.mark.parametrize("key", ["beta", "beta.value"])
@pytest.mark.parametrize("typed", ["beta=2", "beta.value=2"])
def test_a_key_on_the_command_line_replaces_a_grids(key, typed):
    grids = [{"loss": "elbo", key: "1,4"}, {"loss": "dip_vae", key: "1,4", "loss.variant": "1,2"}]
    assert said(None, grids, typed) == [
        "loss=elbo beta.value=2",
        "loss=dip_vae loss.variant=1 beta.value=2",
        "loss=dip_vae loss.variant=2 beta.value=2",
    ]
    assert len(said(None, grids)) == 6  # the control


def test_options_on_the_command_line_choose_among_the_grids_of_their_group():
    own = "loss=factor_vae loss.gamma="
    assert said(None, TWO, "loss=factor_vae") == [f"{own}5", f"{own}20"]
    assert said(None, TWO, "loss=factor_vae", "loss.gamma=7") == [f"{own}7"]
    assert said(None, TWO, "loss=factor_vae,elbo") == said(None, TWO)
    assert said(None, [{"model": "base,conv", "seed": "0,1"}], "model=conv") == [
        "model=conv seed=0",
        "model=conv seed=1",
    ]
    # a grid that does not name the group has what is given
    assert said(None, [{"loss": "elbo"}, {"seed": "1"}], "loss=iwae") == ["seed=1 loss=iwae"]
    with pytest.raises(ConfigError, match=rf"{GRIDS}: no grid .* loss=iwae; choose loss=elbo or factor_vae"):
        jobs_of(None, TWO, ["loss=elbo,iwae"])


def test_the_command_of_a_job_is_that_job_alone():
    """As docs/results.md gives it for each run of the family."""
    for job in sweep_jobs("family"):
        (found,) = jobs_of(FAMILY["params"], FAMILY["grids"], job)
        assert set(found) == set(job)


def test_negative_control_were_options_no_choice_it_would_be_others_too(monkeypatch):
    monkeypatch.setattr(expansion, "groups", dict)
    assert max(len(jobs_of(FAMILY["params"], FAMILY["grids"], job)) for job in sweep_jobs("family")) > 1


def test_values_are_those_of_the_command_line():
    grids = [{"beta": "range(1,3)", "scheduler": None, "optimizer.betas": "'[0.9,0.99]'"}]
    assert said(None, grids) == [f"beta.value={b} scheduler=null optimizer.betas='[0.9,0.99]'" for b in (1, 2)]
    assert said(None, [{"+optimizer.betas": "[0.9,0.99]"}]) == ["+optimizer.betas=[0.9,0.99]"]


WRONG = {
    "no list": {"loss": "elbo"},
    "a text": "loss=elbo",
    "a number": 3,
    "empty": [],
    "no mapping": ["loss=elbo"],
    "a list as a value": [{"seed": [1, 2]}],
    "a nested mapping": [{"loss": {"gamma": "5,20"}}],
    "not readable": [{"seed": "1,]"}],
    "an interval": [{"beta.value": "interval(0.5,4)"}],
}


@pytest.mark.parametrize("grids", WRONG.values(), ids=WRONG)
def test_grids_of_a_wrong_form_are_refused_in_one_line(grids):
    with pytest.raises(ConfigError, match=rf"^{GRIDS}: .*; ") as refusal:
        jobs_of(None, grids)
    assert "\n" not in str(refusal.value)


def test_params_of_a_wrong_form_are_refused():
    with pytest.raises(ConfigError, match=rf"^{PARAMS}: \['seed=1'\] is no mapping"):
        check_form(["seed=1"], None)
    check_form({"seed": "1"}, TWO)
    check_form(None, None)


def test_an_error_of_a_grids_key_names_the_grids_and_others_do_not():
    wrong = ConfigError("beta.value", "-1 is no number >= 0", "give another")
    assert str(blame(wrong, [{"beta": "-1"}], [])) == f"{GRIDS}: beta.value: -1 is no number >= 0; give another"
    assert blame(wrong, [{"seed": "0"}], []) is wrong
    assert blame(wrong, [{"beta": "1"}], ["beta.value=-1"]) is wrong  # the command line's
    assert blame(wrong, None, []) is wrong
