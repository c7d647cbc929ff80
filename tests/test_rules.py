"""fmvae.config.schema: every key takes the values on the edge of its range, and none beyond or of another type."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from fmvae.config import compose
from fmvae.config.rule import Rule
from fmvae.config.schema import OURS, RULES, shown, validate, walk
from fmvae.errors import ConfigError
from fmvae.models.beta import NormOrder
from fmvae.models.conditional import Backbone, Prior
from fmvae.models.residual import Norm


def validated(key: str, value: Any) -> Any:
    """The value as ``validate`` leaves it, in a config of nothing else."""
    config = value
    for part in reversed(key.split(".")):
        config = {part: config}
    node = validate(config)
    for part in key.split("."):
        node = node[part]
    return node


def under(rule: Rule, limit: float) -> float:
    return limit - 1 if rule.type is int else math.nextafter(limit, -math.inf)


def over(rule: Rule, limit: float) -> float:
    return limit + 1 if rule.type is int else math.nextafter(limit, math.inf)


def accepted(rule: Rule) -> Iterator[Any]:
    """Values on the edge of what a rule takes."""
    if rule.type in (int, float):
        lowest = over(rule, rule.above) if math.isfinite(rule.above) else rule.minimum
        highest = under(rule, rule.below) if math.isfinite(rule.below) else rule.maximum
        assert math.isfinite(lowest), "a rule for numbers has a smallest one"
        yield lowest
        yield rule.type(highest if math.isfinite(highest) else 10**6)
    is_folder = rule.path and rule.optional  # where an empty text is none, like null
    others = {
        bool: [True, False],
        str: rule.choices or ["x", *["x" * 200] * bool(rule.pattern), *[""] * (is_folder or not rule.pattern)],
        dict: [{}],
        list: [[], list(rule.choices) or ([rule.of(1)] if rule.of else [1, "a"])],
    }
    if rule.many:
        yield [*rule.choices] or (["x", "y"] if rule.type is str else [rule.minimum, rule.minimum])
    yield from others.get(rule.type, [])
    yield from [None] * rule.optional


def rejected(rule: Rule) -> Iterator[Any]:
    """Values just beyond, and of other types."""
    if rule.type in (int, float):
        yield from (math.nan, math.inf, -math.inf, True, False, "1", [] if rule.many else [1], {})
        yield from [[under(rule, rule.minimum)], ["1"], [[1]], [rule.minimum, None]] * rule.many
        yield 1.5 if rule.type is int else 10**400
        yield rule.above if math.isfinite(rule.above) else under(rule, rule.minimum)
        yield from [over(rule, rule.maximum)] if math.isfinite(rule.maximum) else []
        yield from [rule.below] if math.isfinite(rule.below) else []
    others = {
        bool: [0, 1, "true"],
        str: [True, False, 1.5, [1.5] if rule.many else ["x"], {}] + [3] * bool(rule.choices),
        dict: [3, [], "x"],
        list: [3, "x", {}, (1, 2), True, [1.5], [["x"]], [None]],
    }
    yield from others.get(rule.type, [])
    if rule.of is int:
        yield from [
            [int(limit) + step] for limit, step in ((rule.minimum, -1), (rule.maximum, 1)) if math.isfinite(limit)
        ]
    yield from [["other"] if rule.type is list else "other"] * bool(rule.choices)
    yield from ["\0", "a\0b"] * bool(rule.pattern)
    yield from [""] * bool(rule.pattern and not (rule.path and rule.optional))
    yield from [None] * (not rule.optional)


# --- every key ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", RULES)
def test_every_rule_accepts_its_bounds(key):
    for value in accepted(RULES[key]):
        result = validated(key, value)
        assert result == value
        assert type(result) in (RULES[key].type, type(None), *[list] * RULES[key].many)


@pytest.mark.parametrize("key", RULES)
def test_every_rule_refuses_what_is_beyond(key):
    values = list(rejected(RULES[key]))
    assert len(values) >= 3
    for value in values:
        with pytest.raises(ConfigError) as caught:
            validated(key, copy.deepcopy(value))
        assert caught.value.subject == key
        assert shown(value) in caught.value.problem
        if is_word(value) and RULES[key].type is str and not RULES[key].choices:
            assert str(RULES[key]) in caught.value.problem
            assert caught.value.way_out == f'quote it in a file, as {key.split(".")[-1]}: "{value}"'
        else:
            told = str(caught.value)
            assert told.count(str(RULES[key])) == 1  # said once
            assert any(
                words in told for words in ("leave the key out", "did you mean", "too large", "in brackets")
            )


def is_word(value: Any) -> bool:
    """Whether YAML made something else of a word, as of yes, on or 1.5."""
    return isinstance(value, bool | float)


@pytest.mark.parametrize("key", [key for key, rule in RULES.items() if rule.type is str])
def test_a_whole_number_is_a_name_where_any_text_is(key):
    """As sweep_name=2024; a choice that is no text has no meaning."""
    if RULES[key].choices:
        with pytest.raises(ConfigError):
            validated(key, 2024)
    else:
        assert repr(validated(key, 2024)) == "'2024'"
        assert repr(validated(key, 0)) == "'0'"


@pytest.mark.parametrize("key", [key for key, rule in RULES.items() if rule.path])
def test_the_home_directory_is_spelled_out_in_a_path(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert validated(key, "~") == "/home/me"
    assert validated(key, "~/x") == "/home/me/x"
    assert validated(key, "x~/~") == "x~/~"


def test_every_type_of_rule_is_tried():
    """The two tests above try nothing for a type that they do not know."""
    assert {rule.type for rule in RULES.values()} == {int, float, bool, str, dict, list}


def test_whole_floats_are_whole_numbers():
    for key, rule in RULES.items():
        if rule.type is int:
            whole = int(max(rule.minimum, min(rule.maximum, 7)))
            assert repr(validated(key, float(whole))) == repr(whole)
        if rule.type is float and rule.below > 1:
            whole = max(1, math.ceil(rule.minimum)) if math.isfinite(rule.minimum) else 1
            assert repr(validated(key, whole)) == f"{whole}.0"


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("model.norm_order", NormOrder),
        ("model.backbone", Backbone),
        ("model.prior", Prior),
        ("model.norm", Norm),
    ],
)
def test_choices_of_a_model_are_those_that_its_class_knows(key, known):
    """Rules lie below models and cannot ask them."""
    assert RULES[key].choices == get_args(known)


# a table beside the table: a limit that is changed by accident shows here
@pytest.mark.parametrize(
    ("key", "description"),
    [
        ("seed", "a whole number >= 0"),
        ("force", "true or false"),
        ("beta.fraction", "a finite number >= 0 and <= 1"),
        ("optimizer.lr", "a finite number > 0 and <= 1e+38"),
        ("threads", "a whole number >= 1 and <= 4096 or null"),
        ("checkpoint", "one of best, last"),
        ("trainer.label_smoothing", "a finite number >= 0 and < 1"),
        ("trainer.warmup", "a finite number > 0 and < 1"),
        ("trainer.prune", "a finite number >= 0 and < 1"),
        ("trainer.shift", "a whole number >= 0"),
        ("trainer.flip", "true or false"),
        ("trainer.sides", "a list of whole numbers, as [0,1]"),
        ("trainer.precision", "one of auto, fp32, tf32, bf16"),
        ("figures.only", "a list of texts, as [a,b] or null"),
        ("figures.traversal", "a group of keys"),
        ("figures.traversal.span", "a finite number > 0 and <= 1000"),
        ("figures.traversal.steps", "a whole number >= 2 and <= 101"),
        ("figures.traversal.dimensions", "a list of whole numbers, as [0,1] or null"),
        ("figures.projector", "a whole number >= 0"),
        ("evaluation.fid.num_images", "a whole number >= 0 or null"),
        ("evaluation.fid.features", "a list of texts, as [a,b]"),
        ("evaluation.fid.num_neighbours", "a whole number >= 1"),
        ("evaluation.extractor.weights", "sharp, blurred, a classifier's run or a file of weights"),
        ("evaluation.accuracy.weights", "sharp, blurred, a classifier's run or a file of weights"),
        ("evaluation.extractor.precision", "one of fp32, bf16, auto"),
        ("evaluation.iwae.num_samples", "a whole number >= 0"),
        ("evaluation.iwae.num_images", "a whole number >= 1"),
        ("evaluation.latent", "true or false"),
        ("evaluation.accuracy.num_per_class", "a whole number >= 0 or null"),
        ("evaluation.samplers", "a list of prior, gmm, flow, two_stage, aggregate"),
        ("evaluation.gmm.num_components", "a whole number >= 1 and <= 100000 or a list of such"),
        ("evaluation.gmm.temperature", "a finite number >= 0.01 and <= 2"),
        ("evaluation.flow.hidden", "a list of whole numbers, as [0,1] >= 1 and <= 10000"),
        ("evaluation.cache", "a path or null"),
    ],
)
def test_rules_describe_themselves(key, description):
    assert str(RULES[key]) == description


def test_every_rule_is_of_a_key_that_some_config_file_holds():
    """A key that is renamed in the files alone would lose its rule silently."""
    conf, keys = Path(__file__).resolve().parents[1] / "conf", set()
    for path in conf.rglob("*.yaml"):
        group = ".".join(path.relative_to(conf).parts[:-1])
        keys |= {key for key, _ in walk(yaml.safe_load(path.read_text(encoding="utf-8")), group)}
    assert RULES.keys() - keys == set()


# --- what has no rule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "subject"),
    [
        ({"scheduler": {"gamma": math.nan}}, "scheduler.gamma"),
        ({"scheduler": {"milestones": [1, -math.inf]}}, "scheduler.milestones.1"),
        ({"trainer": {"betas": [16, math.nan]}}, "trainer.betas.1"),
        ({"new": object()}, "new"),
        ({"new": {"deep": {1: 2}}}, "new.deep"),
        ({1: 2}, "config"),
    ],
)
def test_what_json_cannot_hold_is_refused_anywhere(extra, subject):
    """Rules or no rules: the run's identity is a digest of JSON."""
    with pytest.raises(ConfigError) as caught:
        validate(compose() | extra)
    assert caught.value.subject == subject


def test_keys_without_a_rule_and_keys_that_are_absent_are_left_alone():
    config = {"model": {"new": 1}, "seed": 3, "evaluation": None, "trainer": [1]}
    assert validate(copy.deepcopy(config)) == config


def test_walk_names_everything_by_its_path():
    tree = {"a": {"b": 1, "c": [2, {"d": None}]}, "e": {}}
    assert dict(walk(tree)) == {
        "": tree,
        "a": tree["a"],
        "a.b": 1,
        "a.c": [2, {"d": None}],
        "a.c.0": 2,
        "a.c.1": {"d": None},
        "a.c.1.d": None,
        "e": {},
    }


def test_walk_does_not_enter_texts():
    assert list(walk("ab", "key")) == [("key", "ab")]


@pytest.mark.parametrize("key", OURS)
def test_a_users_class_may_take_other_values_than_ours_under_the_same_name(key):
    group, name = key.split(".")
    value = [0.5, "other"]
    found = validate({group: {"_target_": "mine.Own", name: value}})
    assert found[group][name] == value
    with pytest.raises(ConfigError):
        validate({group: {"_target_": "fmvae.objectives.Own", name: value}})
