"""A run's directory over a thousand configs: what trains other numbers has another, and nothing else has."""

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fmvae.common.digests import digest
from fmvae.config import compose, identity
from fmvae.config.identity import NON_SEMANTIC, RunIdentity
from fmvae.config.rule import Rule
from fmvae.config.schema import RULES, validate, walk

Config = dict[str, Any]
NUM_CONFIGS = 1000
COMPOSED = [
    compose(),
    compose(["model=conditional", "beta=cyclical", "likelihood=gaussian", "optimizer=sgd", "scheduler=plateau"]),
    compose(["model=beta", "beta=capacity", "data=fashion_mnist_small", "scheduler=cosine", "data.sha256={a: b}"]),
    compose(["data=sprites", "model=conv", "tracker=wandb"]),
    compose(["tracker=mlflow"]),
    compose(config_name="classifier"),
]


# --- configs --------------------------------------------------------------------------------------------------


def values(rule: Rule) -> st.SearchStrategy[Any]:
    """Whatever a rule takes."""
    if rule.type is int:
        found: st.SearchStrategy[Any] = st.integers(int(rule.minimum), int(min(rule.maximum, 2**63 - 1)))
    elif rule.type is float:
        lowest, highest = max(rule.minimum, rule.above), min(rule.maximum, rule.below, 1e300)
        found = st.floats(lowest, highest, exclude_min=rule.above == lowest, exclude_max=rule.below == highest)
    elif rule.type is list:
        items = st.sampled_from(rule.choices) if rule.choices else st.text(max_size=5)
        numbers = st.integers(int(max(rule.minimum, 0)), int(min(rule.maximum, 99)))
        found = st.lists(numbers if rule.of is int else items, max_size=3)
    elif rule.choices:
        found = st.sampled_from(rule.choices)
    else:
        texts = st.from_regex(rule.pattern, fullmatch=True) if rule.pattern else st.text(max_size=8)
        found = st.booleans() if rule.type is bool else texts
    return found | st.none() if rule.optional else found


def others(value: Any) -> st.SearchStrategy[Any]:
    """Of the same type as a value that has no rule."""
    kinds = {bool: st.booleans(), int: st.integers(), float: st.floats(allow_nan=False, allow_infinity=False)}
    return kinds.get(type(value), st.text(max_size=8)) | (st.none() if value is None else st.nothing())


def leaves(config: Config) -> list[str]:
    """Keys that hold values: a list with a rule is one, and a group that may be a text as well is none."""
    listed = [path for path, value in walk(config) if path in RULES and isinstance(value, list)]
    return [
        path
        for path, value in walk(config)
        if path in listed
        or not (isinstance(value, dict | list) or path.startswith(tuple(f"{p}." for p in listed)))
    ]


def nameless(path: str) -> bool:
    return f"{path}.".startswith(tuple(f"{key}." for key in NON_SEMANTIC))


LEAVES = [leaves(config) for config in COMPOSED]


def node(config: Config, path: str) -> tuple[Any, Any]:
    """What holds a key, and the key in it."""
    *parents, leaf = (int(part) if part.isdigit() else part for part in path.split("."))
    found: Any = config
    for parent in parents:
        found = found[parent]
    return found, leaf


@st.composite
def changed(draw: st.DrawFn, base: Config, keys: Iterable[str]) -> Config:
    """A valid config that differs from ``base`` in these keys, at most."""
    config = json.loads(json.dumps(base))
    for path in keys:
        parent, leaf = node(config, path)
        parent[leaf] = draw(values(RULES[path]) if path in RULES else others(parent[leaf]))
    return validate(config)


@st.composite
def any_config(draw: st.DrawFn) -> Config:
    """One of those composed, with two to four values changed, at least one of which trains."""
    place = draw(st.integers(0, len(COMPOSED) - 1))
    keys = draw(st.lists(st.sampled_from(LEAVES[place]), min_size=1, max_size=3, unique=True))
    trains = draw(st.sampled_from([path for path in LEAVES[place] if not nameless(path)]))
    return draw(changed(COMPOSED[place], dict.fromkeys([*keys, trains])))


@pytest.fixture(scope="module")
def generated() -> list[Config]:
    """A thousand of them, others each time."""
    found: list[Config] = []

    @settings(
        max_examples=NUM_CONFIGS,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(any_config())
    def collect(config: Config) -> None:
        found.append(config)

    collect()
    assert len(found) >= NUM_CONFIGS
    return found


# --- what two configs have in common, told without the product ------------------------------------------------


def meaning(config: Config) -> frozenset[tuple[str, str]]:
    """Every value that trains, with its key: 1 and 1.0 are the same; 1, "1" and true are not."""

    def said(value: Any) -> str:
        if type(value) is float and value.is_integer():
            value = int(value)
        kind = "number" if type(value) in (int, float) else type(value).__name__
        return f"{kind} {value!r}"

    return frozenset(
        (path, said(value))
        for path, value in walk(config)
        if not (isinstance(value, dict | list) and value) and not nameless(path)
    )


def name(config: Config) -> str:
    return RunIdentity.of(config).name


def shared(found: Iterable[Config]) -> list[tuple[str, set[tuple[str, str]]]]:
    """Names that two configs of another meaning share, and what these differ in."""
    known: dict[str, frozenset[tuple[str, str]]] = {}
    clashes = []
    for config in found:
        here = meaning(config)
        if (there := known.setdefault(name(config), here)) != here:
            clashes.append((name(config), set(there ^ here)))
    return clashes


# --- the properties -------------------------------------------------------------------------------------------


def test_the_configs_are_many_and_differ(generated):
    assert len({meaning(config) for config in generated}) > 0.5 * NUM_CONFIGS  # 0.69 to 0.72 in three trials
    touched = {key for config in generated for key, _ in meaning(config) ^ meaning(COMPOSED[0])}
    assert len(touched) > 50  # of 61 that it usually touches: hypothesis may pass over some


def test_configs_of_another_meaning_share_no_directory(generated):
    assert shared(generated) == []


def test_configs_of_the_same_meaning_share_one(generated):
    names: dict[frozenset, set[str]] = {}
    for config in generated:
        names.setdefault(meaning(config), set()).add(name(config))
    assert [found for found in names.values() if len(found) > 1] == []


NAMELESS = [[path for path in keys if nameless(path)] for keys in LEAVES]


@settings(max_examples=NUM_CONFIGS // 10)
@given(st.data(), st.integers(0, len(COMPOSED) - 1))
def test_what_trains_no_number_changes_no_name(data, place):
    config = data.draw(changed(COMPOSED[place], data.draw(st.lists(st.sampled_from(LEAVES[place]), max_size=2))))
    keys = data.draw(st.lists(st.sampled_from(NAMELESS[place]), min_size=1, max_size=4))
    other = data.draw(changed(config, [key for key in keys if fits(config, key)]))
    assert name(other) == name(config)


def fits(config: Config, path: str) -> bool:
    """Whether a key is still there, which the change of a list above it may have taken away."""
    try:
        parent, leaf = node(config, path)
        parent[leaf]
    except (LookupError, TypeError, ValueError):
        return False
    return True


def test_every_nameless_key_is_among_them():
    whole = {key for keys in NAMELESS for key in keys}
    assert all(any(f"{path}.".startswith(f"{key}.") for path in whole) for key in NON_SEMANTIC)


def respelled(value: Any, rng: random.Random) -> Any:
    """The same with its keys in another order, and whole numbers written as 1 or as 1.0."""
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: respelled(value[key], rng) for key in keys}
    if isinstance(value, list):
        return [respelled(item, rng) for item in value]
    if type(value) is int and abs(value) < 2**53 and rng.random() < 0.5:
        return float(value)
    return int(value) if type(value) is float and value.is_integer() and rng.random() < 0.5 else value


@settings(max_examples=NUM_CONFIGS // 10)
@given(any_config(), st.randoms(use_true_random=False))
def test_order_and_spelling_change_no_name(config, rng):
    other = respelled(config, rng)
    for key, rule in RULES.items():
        if rule.type is list and fits(other, key):  # a list's items are of one type
            parent, leaf = node(other, key)
            parent[leaf] = node(config, key)[0][leaf]
    assert name(validate(other)) == name(config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["beta=1.0"],
        ["trainer.epochs=30.0", "data.batch_size=128.0", "data.val_size=6000.0"],
        ["seed=0.0"],
        ["latent_dim=2.0"],
        ["data.num_classes=10.0", "model=conditional"],
    ],
    ids=" ".join,
)
def test_what_shares_a_directory_is_the_same_to_what_reads_it(overrides):
    """Not only in the name: what follows another key by an interpolation is brought to its type as well."""
    plain = compose([override.removesuffix(".0") for override in overrides])
    other = compose(overrides)
    assert name(other) == name(plain)
    assert repr(other) == repr(plain)


def test_zero_has_one_name():
    assert name(compose(["beta=-0.0"])) == name(compose(["beta=0"]))


# --- negative controls ----------------------------------------------------------------------------------------


def test_negative_control_names_of_one_digit_collide(generated, monkeypatch):
    monkeypatch.setattr(identity, "digest", lambda part: digest(part)[:1])
    assert shared(generated)


@pytest.mark.parametrize(
    ("dropped", "value"), [("optimizer.lr", 0.5), ("model._target_", "x"), ("trainer.epochs", 31), ("seed", 7)]
)
def test_negative_control_a_key_that_is_dropped_is_noticed(monkeypatch, dropped, value):
    other = json.loads(json.dumps(COMPOSED[0]))
    parent, leaf = node(other, dropped)
    parent[leaf] = value
    assert shared([COMPOSED[0], other]) == []
    monkeypatch.setattr(identity, "NON_SEMANTIC", (*NON_SEMANTIC, dropped))
    # without what a name spells out
    monkeypatch.setattr("tests.faults.test_identity.name", lambda config: digest(identity.semantic(config))[:8])
    clashes = shared([COMPOSED[0], other])
    assert clashes
    assert all({key for key, _ in differing} == {dropped} for _, differing in clashes)


def test_negative_control_a_nameless_key_that_counts_is_noticed(monkeypatch):
    monkeypatch.setattr(identity, "NON_SEMANTIC", tuple(key for key in NON_SEMANTIC if key != "threads"))
    other = COMPOSED[0] | {"threads": 3}
    assert meaning(other) == meaning(COMPOSED[0])
    assert name(other) != name(COMPOSED[0])
