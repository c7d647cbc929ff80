"""fmvae.config: number shorthand, what names a run, and what a config can build."""

import copy
import json
from typing import Any

import hydra.utils
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fmvae.config import compose
from fmvae.config.building import build
from fmvae.config.identity import NON_SEMANTIC, RunIdentity, semantic
from fmvae.config.schema import walk
from fmvae.config.shorthand import expand_shorthand, shortened
from fmvae.config.stored import ASKED_ANEW, read_config, to_yaml
from fmvae.errors import ConfigError, DataError
from fmvae.models import VAE, BaseVAE
from fmvae.objectives import Bernoulli

# --- number shorthand -----------------------------------------------------------------------------------------

NUMBERS = [
    "0.5",
    "0.5,1,4",
    "2,10",
    "5e-1",
    "5E-1",
    "1e+3",
    ".5",
    "5.",
    "-1",
    "+1",
    "2.5",
    "nan",
    "inf",
    "-inf",
    "0.5, 1, 4",
    "range(1,4)",
    "range(1,10,step=2)",
    "range(start=1,stop=4)",
    "choice(0.5,1)",
    "interval(0,1)",
]
OTHERS = [
    "beta=warmup",
    "beta=warmup,constant",
    "beta=0.5,warmup",
    "beta=choice(warmup,constant)",
    "beta=[0.5,1]",
    "beta=z10",
    "beta=1e",
    "beta=1.2.3",
    "beta=range(1,4",
    "beta=range(1 4)",
    "beta=range(a=1)",
    "beta=",
    "beta=null",
    "beta",
    "beta.value=3",
    "beta.fraction=0.5",
    "+beta=3",
    "~beta",
    "model=base",
    "model=3",
    "seed=3",
    "-m",
    "gamma.beta=3",
    "latent_dims=3",
]


@pytest.mark.parametrize("group", ["beta", "latent_dim"])
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_go_to_the_value_of_the_group(group, number):
    assert expand_shorthand([f"{group}={number}"]) == [f"{group}.value={number}"]
    assert shortened(f"{group}.value={number}") == f"{group}={number}"


@pytest.mark.parametrize("argument", OTHERS)
def test_all_else_is_left_to_hydra(argument):
    assert expand_shorthand([argument]) == [argument]
    assert shortened(argument) == {"beta.value=3": "beta=3"}.get(argument, argument)


def test_a_long_number_that_is_none_is_soon_told():
    """Not after trying every way to cut it in parts."""
    argument = f"beta=range({'1' * 2000}x)"
    assert expand_shorthand([argument]) == [argument]


def test_arguments_keep_their_order():
    arguments = ["-m", "beta=warmup", "beta=3", "model=base", "latent_dim=2,3"]
    assert expand_shorthand(arguments) == [
        "-m",
        "beta=warmup",
        "beta.value=3",
        "model=base",
        "latent_dim.value=2,3",
    ]


@settings(deadline=None)
@given(st.floats())
def test_any_float_is_expanded(number):
    assert expand_shorthand([f"beta={number!r}"]) == [f"beta.value={number!r}"]


@settings(max_examples=25, deadline=None)
@given(st.floats(min_value=0, allow_infinity=False))
@pytest.mark.slow
def test_any_beta_composes_to_itself(number):
    assert compose([f"beta={number!r}"])["beta"]["value"] == number


# --- identity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["beta=1"], ["beta=1.0"]),
        (["beta=0.5"], ["beta.value=5e-1"]),
        (["latent_dim=10"], ["latent_dim=z10"]),
        (["latent_dim=10"], ["latent_dim=10.0"]),
        (["trainer.max_grad_norm=1"], ["trainer.max_grad_norm=1.0"]),
        (["scheduler=step", "scheduler.gamma=1"], ["scheduler=step", "scheduler.gamma=1.0"]),
        ([], ["experiment=baseline"]),
        (["seed=1", "beta=2"], ["beta=2", "seed=1"]),
    ],
)
def test_two_ways_to_say_it_are_one_run(one, other):
    ours, theirs = (semantic(compose(overrides)) for overrides in (one, other))
    assert RunIdentity.of(ours).sha256 == RunIdentity.of(theirs).sha256
    assert RunIdentity.of(ours).name == RunIdentity.of(theirs).name


# whatever else there is changes a trained bit: to leave a key out of a run's identity takes a line here
NAMELESS = {
    "data.cache",
    "device",
    "threads",
    "restart",
    "dry_run",
    "output_root",
    "objective",
    "sweep_name",
    "figures",
    "evaluation",
    "tracker",
    "data.root",
    "data.download",
    "data.download_to",
    "data.class_names",
    "trainer.checkpoint_every",
    "trainer.progress",
    "trainer.start",
}
CONFIGS = [
    [],
    ["model=conditional", "beta=cyclical", "likelihood=gaussian", "optimizer=sgd", "scheduler=plateau"],
    ["model=beta", "beta=capacity", "data=fashion_mnist_small", "scheduler=cosine", "data.sha256={a: b}"],
]


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else "another"


def test_the_keys_that_name_no_run():
    assert set(NON_SEMANTIC) == NAMELESS


@pytest.mark.parametrize("overrides", CONFIGS, ids=["default", "conditional", "beta"])
def test_every_key_changes_the_identity_or_is_known_not_to(overrides):
    config = compose(overrides)
    identity = RunIdentity.of(config).sha256
    leaves = [path for path, value in walk(config) if not isinstance(value, dict | list)]
    assert len(leaves) > 40
    for path in leaves:
        other = copy.deepcopy(config)
        *parents, leaf = (int(part) if part.isdigit() else part for part in path.split("."))
        node: Any = other
        for parent in parents:
            node = node[parent]
        node[leaf] = changed(node[leaf])
        assert other != config
        nameless = any(f"{path}.".startswith(f"{key}.") for key in NAMELESS)
        assert (RunIdentity.of(other).sha256 == identity) == nameless, path


def test_a_new_key_changes_the_identity():
    config = compose()
    identity = RunIdentity.of(config).sha256
    assert RunIdentity.of(config | {"new": None}).sha256 != identity
    config["data"]["new"] = {"root": 1}
    assert RunIdentity.of(config).sha256 != identity


def test_the_order_of_keys_does_not_matter():
    def reversed_(node: Any) -> Any:
        return {key: reversed_(node[key]) for key in reversed(node)} if isinstance(node, dict) else node

    config = compose()
    backwards = reversed_(config)
    assert list(backwards) == list(config)[::-1]
    assert RunIdentity.of(backwards).sha256 == RunIdentity.of(config).sha256
    assert json.dumps(semantic(backwards)) == json.dumps(semantic(config))


def test_semantic_leaves_the_config_alone():
    config = compose()
    before = copy.deepcopy(config)
    semantic(config)
    assert config == before


# --- objects --------------------------------------------------------------------------------------------------


def test_classes_of_ours_and_of_torch_are_built():
    model = build(compose(["latent_dim=3"])["model"], "model", VAE)
    assert isinstance(model, BaseVAE)
    assert model.latent_dim == 3
    linear = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    assert build(linear, "layer", torch.nn.Linear).weight.shape == (3, 2)
    adam = {"_target_": "torch.optim.Adam", "lr": 0.1}
    optimizer = build(adam, "optimizer", torch.optim.Optimizer, params=list(model.parameters()))
    assert optimizer.param_groups[0]["lr"] == 0.1
    crop = {"_target_": "torchvision.transforms.CenterCrop", "size": 4}
    assert build(crop, "crop", torch.nn.Module)(torch.zeros(1, 9, 9)).shape == (1, 4, 4)


def test_nested_nodes_are_built_too():
    node = {
        "_target_": "torch.nn.TransformerEncoder",
        "encoder_layer": {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 2, "nhead": 1},
        "num_layers": 2,
        "norm": {"_target_": "torch.nn.LayerNorm", "normalized_shape": [2]},
        "enable_nested_tensor": False,
    }
    encoder = build(node, "encoder", torch.nn.TransformerEncoder)
    assert isinstance(encoder.norm, torch.nn.LayerNorm)
    assert len(encoder.layers) == 2


BASE = {"_target_": "fmvae.models.BaseVAE", "latent_dim": 2}
TOUCH = "open('executed', 'w')"
PICKLE = b"cbuiltins\nexec\n(V" + TOUCH.encode() + b"\ntR."
LINEAR = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
REFUSED = {
    # foreign
    "os.system": {"_target_": "os.system", "command": "touch executed"},
    "posix.system": {"_target_": "posix.system", "command": "touch executed"},
    "eval": {"_target_": "builtins.eval", "_args_": [TOUCH]},
    "exec": {"_target_": "builtins.exec", "_args_": [TOUCH]},
    "open": {"_target_": "builtins.open", "file": "executed", "mode": "w"},
    "Popen": {"_target_": "subprocess.Popen", "args": ["touch", "executed"]},
    "Path": {"_target_": "pathlib.Path", "_args_": ["executed"]},
    "torch.load": {"_target_": "torch.load", "f": "pickle.pt", "weights_only": False},
    "torch.utils": {"_target_": "torch.utils.cpp_extension.load", "name": "x", "sources": []},
    "torch's other rooms": {"_target_": "torch.utils.data.SequentialSampler", "data_source": [1]},
    # reached through modules of ours
    "our subprocess": {"_target_": "fmvae.runs.provenance.subprocess.Popen", "args": ["touch", "executed"]},
    "our instantiate": {
        "_target_": "fmvae.config.building.hydra.utils.instantiate",
        "config": {"_target_": "subprocess.Popen", "args": ["touch", "executed"]},
    },
    "our call": {"_target_": "fmvae.config.building.hydra.utils.call", "config": {"_target_": "os.getcwd"}},
    "our instantiate by another door": {
        "_target_": "fmvae.config.hydra_internals.hydra.utils.instantiate",
        "config": {"_target_": "subprocess.Popen", "args": ["touch", "executed"]},
    },
    "our OmegaConf": {"_target_": "fmvae.config.composing.OmegaConf"},
    "our Path": {"_target_": "fmvae.config.composing.Path", "_args_": ["executed"]},
    "torch's torch": {"_target_": "torch.nn.modules.module.torch.load", "f": "pickle.pt", "weights_only": False},
    "torch's builtins": {"_target_": "torch.nn.modules.module.OrderedDict"},
    "a metaclass": {"_target_": "fmvae.models.BaseVAE.__class__", "name": "x", "bases": [], "namespace": {}},
    # ours, and no class
    "a function": {"_target_": "fmvae.data.sources._run", "args": ["touch", "executed"], "cwd": "."},
    "a functional": {"_target_": "torch.nn.functional.relu", "input": 1},
    "a method": {"_target_": "fmvae.models.BaseVAE.encode"},
    "a module": {"_target_": "fmvae.models"},
    "an instance": {"_target_": "fmvae.config.schema.RULES"},
    # no class at all
    "nothing": {"_target_": "fmvae.models.Nope"},
    "no module": {"_target_": "fmvae.nope.Nope"},
    "a prefix": {"_target_": "fmvae."},
    "dots": {"_target_": "fmvae..os.system"},
    "a number": {"_target_": 3},
    "null": {"_target_": None},
    "a list": {"_target_": ["os.system"]},
    "a mapping": {"_target_": {"_target_": "os.getcwd"}},
    "an abstract class": {"_target_": "fmvae.models.VAE", "latent_dim": 2},
    # inside what is allowed
    "nested": BASE | {"hidden_dim": {"_target_": "subprocess.Popen", "args": ["touch", "executed"]}},
    "in a list": BASE | {"image_shape": [1, {"_target_": "subprocess.Popen", "args": ["touch", "executed"]}]},
    "in lists": BASE | {"image_shape": [[{"a": {"_target_": "os.system", "command": "touch executed"}}]]},
    "beneath an allowed one": BASE | {"hidden_dim": LINEAR | {"bias": {"_target_": "os.getcwd"}}},
    # Hydra's annotations
    "partial": BASE | {"_partial_": True},
    "args": BASE | {"_args_": [2]},
    "recursive": BASE | {"_recursive_": False},
    "convert": BASE | {"_convert_": "none"},
    "nested args": BASE | {"hidden_dim": {"_args_": [2]}},
    # interpolations
    "environment": BASE | {"hidden_dim": "${oc.env:HOME}"},
    "a resolver": BASE | {"image_shape": ["${fmvae.project:x}"]},
    # what the constructor refuses
    "an unknown argument": BASE | {"depth": 3},
    "a missing argument": {"_target_": "fmvae.models.BaseVAE"},
    "a wrong value": BASE | {"image_shape": [28, 28]},
    "a missing value": BASE | {"hidden_dim": "???"},
}


DOORS = [name for name in REFUSED if name.startswith(("our ", "torch's ", "a function", "an instance"))]


@pytest.mark.parametrize("name", DOORS)
def test_negative_control_the_doors_are_there(name):
    """What no module holds any more would be refused for that alone."""
    assert hydra.utils.get_object(REFUSED[name]["_target_"]) is not None


@pytest.mark.parametrize("node", REFUSED.values(), ids=REFUSED)
def test_nothing_else_is_built_or_run(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickle.pt").write_bytes(PICKLE)
    before = copy.deepcopy(node)
    with pytest.raises(ConfigError) as caught:
        build(node, "model", object)
    assert caught.value.subject.split(".")[0] == "model"
    assert [path.name for path in tmp_path.iterdir()] == ["pickle.pt"]
    assert node == before


@pytest.mark.parametrize(
    "node",
    [{"_target_": "fmvae.objectives.Bernoulli"}, LINEAR, {"_target_": "torch.nn.Module"}, {"latent_dim": 2}, {}],
    ids=["likelihood", "layer", "parent", "no target", "empty"],
)
def test_what_is_of_another_kind_is_not_built(node):
    with pytest.raises(ConfigError, match=r"model\._target_: "):
        build(node, "model", VAE)


def test_a_package_with_a_name_like_ours_is_foreign(tmp_path, monkeypatch):
    (tmp_path / "fmvae_models.py").write_text(f"class Model:\n    pass\n\n\n{TOUCH}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"'fmvae_models\.Model' is not allowed"):
        build({"_target_": "fmvae_models.Model"}, "model", object)
    assert not (tmp_path / "executed").exists()  # it was not even imported


def test_targets_are_looked_at_before_anything_is_instantiated(monkeypatch):
    """The last of a list, too; whatever Hydra itself would refuse of it."""
    monkeypatch.setattr(hydra.utils, "instantiate", lambda *_, **__: pytest.fail("instantiated"))
    with pytest.raises(ConfigError, match=r"model.hidden_dim.1._target_: 'os.system' is not allowed"):
        build(BASE | {"hidden_dim": [LINEAR, {"_target_": "os.system"}]}, "model", VAE)


def test_negative_control_the_sentinels_work(tmp_path, monkeypatch):
    """What a refused node would do, if it were run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickle.pt").write_bytes(PICKLE)
    with pytest.raises(RuntimeError, match="corrupt"):  # too late
        torch.load("pickle.pt", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_errors_of_ours_come_out_of_a_constructor_as_they_are(tmp_path):
    node = compose([f"data.root={tmp_path}", "data.sha256={a: b}"])["data"]
    with pytest.raises(DataError, match=r"data.sha256: names a"):
        build(node, "data", object)


def test_a_constructor_that_fails_without_a_word_is_named(monkeypatch):
    class Silent(Bernoulli):
        def __init__(self):
            raise AssertionError

    monkeypatch.setattr(Silent, "__module__", "fmvae.objectives")
    monkeypatch.setattr("fmvae.objectives.Silent", Silent, raising=False)
    with pytest.raises(ConfigError, match="likelihood: AssertionError; see the class"):
        build({"_target_": "fmvae.objectives.Silent"}, "likelihood", Bernoulli)


# --- on disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", CONFIGS, ids=["default", "conditional", "beta"])
def test_a_config_is_read_as_it_was_written(tmp_path, overrides):
    config = compose(overrides)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    expected = {key: value for key, value in config.items() if key not in ASKED_ANEW}
    assert read_config(tmp_path / "config.yaml") == expected
    assert list(read_config(tmp_path / "config.yaml")) == list(expected)
    assert len(config) == len(expected) + len(ASKED_ANEW)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["C"])))
def test_any_value_is_read_as_it_was_written(value):
    """Numbers without a dot, or words that YAML has a meaning for: on, 1e3, 2020-01-01."""
    assert yaml.safe_load(to_yaml({"key": value})) == {"key": value}


@pytest.mark.parametrize("value", ["on", "1e3", "1e-3", "null", "~", "2020-01-01", "12:30:45", "0x10", "a: b", ""])
def test_words_with_a_meaning_stay_words(value):
    assert yaml.safe_load(to_yaml({"key": value})) == {"key": value}


UNREADABLE = {
    "a call": b"seed: !!python/object/apply:os.system ['touch executed']",
    "a new object": b"seed: !!python/object/new:subprocess.Popen [['touch', 'executed']]",
    "a name": b"seed: !!python/name:os.system",
    "a tuple": b"seed: !!python/tuple [1, 2]",
    "binary": b"\x89PNG\r\n\x1a\n\x00\xff",
    "no text": "sød: 1".encode("latin-1"),
    "no date": b"seed: 2020-99-99",
    "unhashable": b"? [a]: b\n: {c: d}",
    "cut": b"model: {a: [1,",
    "deep": b"[" * 10_000,
    "empty": b"",
    "a list": b"- 1",
    "a word": b"hello",
    "no groups": b"seed: 0",
    "groups of another kind": b"{model: 1, beta: 2, latent_dim: 3, data: 4}",
    "a bad value": b"{model: {}, beta: {value: banana}, latent_dim: {}, data: {}}",
    "a date": b"{model: {}, beta: {}, latent_dim: {}, data: {}, seed: 2020-01-01}",
    "a date without a rule": b"{model: {}, beta: {}, latent_dim: {}, data: {}, new: 2020-01-01}",
    "a key that is no text": b"{model: {}, beta: {}, latent_dim: {}, data: {}, 1: 2}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_no_config_is_refused_and_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError):
        read_config(tmp_path / "config.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_missing_config_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"config.yaml: there is no such file; name a run's directory"):
        read_config(tmp_path / "config.yaml")


def test_an_interpolation_in_a_stored_config_is_text_that_is_not_built(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "3")
    edited = to_yaml(compose()).replace("hidden_dim: 400", "hidden_dim2: ${oc.env:SECRET}")
    (tmp_path / "config.yaml").write_text(edited)
    model = read_config(tmp_path / "config.yaml")["model"]
    assert model["hidden_dim2"] == "${oc.env:SECRET}"
    with pytest.raises(ConfigError, match="unresolved text"):
        build(model, "model", VAE)
