"""What a search varies, from the command line."""

from typing import Any

import pytest

from fmvae.config.hydra_internals import OverridesParser
from fmvae.config.shorthand import expand_shorthand
from fmvae.config.space import Choice, Interval, space_of
from fmvae.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("beta=interval(0.5,4)", "beta.value", Interval(0.5, 4.0)),
        ("latent_dim=int(tag(log,interval(2,32)))", "latent_dim.value", Interval(2, 32, log=True, whole=True)),
        ("latent_dim=tag(log,int(interval(2,32)))", "latent_dim.value", Interval(2, 32, log=True, whole=True)),
        ("beta=float(interval(1,3))", "beta.value", Interval(1.0, 3.0)),
        ("beta=shuffle(1,2)", "beta.value", Choice((1, 2))),
        ("beta=tag(log,interval(0.5,4))", "beta.value", Interval(0.5, 4.0, log=True)),
        ("latent_dim=int(interval(2,32))", "latent_dim.value", Interval(2, 32, whole=True)),
        ("latent_dim=2,10", "latent_dim.value", Choice((2, 10))),
        ("seed=range(0,3)", "seed", Interval(0, 2, whole=True, step=1)),
        ("seed=range(7,0,-3)", "seed", Interval(1, 7, whole=True, step=3)),
        ("beta.value=range(0.5,2,0.5)", "beta.value", Interval(0.5, 1.5, step=0.5)),
        ("seed=shuffle(range(1,4))", "seed", Interval(1, 3, whole=True, step=1)),
        ("model=choice(base,conv)", "model", Choice(("base", "conv"))),
        ("model=shuffle(base,conv)", "model", Choice(("base", "conv"))),
        ("scheduler=null,cosine", "scheduler", Choice(("null", "cosine"))),
        ("trainer.max_grad_norm=null,10", "trainer.max_grad_norm", Choice(("null", 10))),
        ("evaluation.samplers=[prior],[prior,gmm]", "evaluation.samplers", Choice(("[prior]", "[prior,gmm]"))),
        ("a=choice('x','c,d')", "a", Choice(("x", "'c,d'"))),
        ("a=str(choice(1,2))", "a", Choice(("'1'", "'2'"))),
        ("a='c d',e", "a", Choice(("'c d'", "e"))),
        ("+data.noise=interval(0,1)", "+data.noise", Interval(0.0, 1.0)),
    ],
)
def test_a_key_is_varied_as_written(text, key, expected):
    assert space_of(None, [text, "trainer.epochs=3"]).varied == {key: expected}


def test_a_range_has_the_values_that_it_has_in_a_sweep():
    """And not its end, which Hydra's own Optuna sweeper includes."""
    found = space_of(None, ["seed=range(0,10,4)"]).varied["seed"]
    assert isinstance(found, Interval)
    assert found.step is not None
    assert [found.low + i * found.step for i in range(3)] == [0, 4, found.high]


@pytest.mark.parametrize("text", ["0,3", "0,10,4", "7,0,-3", "0.5,2,0.5", "0.1,1,0.1", "0,1,1e-4", "5,5"])
def test_ends_of_a_range_are_those_of_counting(text):
    parser = OverridesParser.create()
    value: Any = parser.parse_override(f"seed=range({text})").value()
    counted = list(value.range())
    if not counted:
        with pytest.raises(ConfigError, match="is empty"):
            space_of(None, [f"seed=range({text})"])
        return
    found = space_of(None, [f"seed=range({text})"]).varied["seed"]
    assert isinstance(found, Interval)
    assert (found.low, found.high) == pytest.approx((min(counted), max(counted)), rel=1e-12)


@pytest.mark.parametrize("text", ["0,900000000000000", "0,1,1e-12"])
def test_a_long_range_takes_no_time(text):
    found = space_of(None, [f"seed=range({text})"]).varied["seed"]
    assert isinstance(found, Interval)
    assert found.high in (9 * 10**14 - 1, pytest.approx(1))


def test_what_is_no_mapping_gives_no_keys():
    given: Any = 5
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.params: 5 gives no keys"):
        space_of(given, [])


def test_the_rest_is_fixed_and_arguments_replace_params():
    space = space_of({"beta": "interval(1,2)", "seed": 3, "tracker": None}, ["beta=interval(3,4)", "~x", "seed=0"])
    assert space.varied == {"beta.value": Interval(3.0, 4.0)}
    assert space.fixed == ("seed=0", "tracker=null", "~x")
    assert space_of({"beta": "interval(1,2)"}, ["seed=1,2", "beta=4"]).fixed == ("beta.value=4",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beta=1", "^hydra/sweeper: the search varies no key; write interval"),
        ("beta.value=interval(4,1)", r"^beta.value: interval\(4.*\) is empty; give the lower end first"),
        ("beta.value=interval(1,1)", "is empty"),
        ("beta.value=tag(log,interval(0,1))", "has no logarithm; give the lower end first, above 0"),
        ("seed=range(3,0)", "is empty"),
        ("beta.value=interval(1,inf)", "has no end; give finite numbers"),
        ("beta.value=interval(nan,1)", "has no end"),
        ("seed=1,2,1", "has a value twice; give each value once"),
        ("beta.value=interval(-1e308,1e308)", "is too wide; give ends below 1e308"),
        ("beta.value=tag(lgo,interval(1,2))", r"the tag lgo in tag\(lgo,.*\) has no meaning; write tag\(log"),
        ("beta.value=tag(log,choice(1,2))", "the tag log in .* has no meaning here; write"),
        ("seed=tag(log,range(0,5))", "has other steps; on a log scale, a range has whole"),
        ("seed=tag(log,range(2,9,2))", "has other steps"),
        (
            "objective=neg_elbo,kl",
            r"^objective: several values; for several objectives, write objective=\[neg_elbo,fid\]$",
        ),
        ("seed=range(0.5,1e25)", r"^seed: range\(0.5,1e25\) is too wide; give ends below 1e15"),
        ("seed=range(-1e308,1e308,1)", "is too wide"),
        (f"seed=range(0,{10**400})", "is too wide"),
        ("beta.value=range(0,1,1e-300)", "is too wide"),
        ("beta.value=range(0,1,0)", "is empty"),
        ("hydra/launcher=basic,joblib", "^hydra/launcher: several values; give one"),
        ("dry_run=true,false", "^dry_run: several values; give one"),
        ("output_root=choice(a,b)", "^output_root: several values; give one"),
        ("+hydra.sweeper.params.x=interval(0,1)", "^hydra.sweeper.params.x: several values; give one"),
    ],
)
def test_what_holds_no_values_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        space_of(None, [text])


def test_the_shorthand_of_beta_holds_for_functions_too():
    assert expand_shorthand(
        ["beta=tag(log,interval(1,4))", "latent_dim=int(interval(2, 9))", "beta=tag(x,1)"]
    ) == [
        "beta.value=tag(log,interval(1,4))",
        "latent_dim.value=int(interval(2, 9))",
        "beta=tag(x,1)",
    ]
