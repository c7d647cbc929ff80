"""Types and ranges of the values of a config's keys, and the errors for wrong values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fmvae.config.rule import Rule
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import SAMPLERS
from fmvae.evaluation.criteria import WORDS
from fmvae.weights import SHIPPED

COUNT = Rule(int, minimum=1)
SIZE = Rule(int, minimum=0)
ANY_SIZE = Rule(int, minimum=0, optional=True)
DEPTH = Rule(int, minimum=1, maximum=1000)  # layers are built one by one: a million would take hours
SMALLEST_SIDE = 9  # pixels: a classifier shrinks smaller images to one, on which batch norm fails for one image
PATH = Rule(str, path=True, pattern=r"[^\0]+", called="a path")
FOLDER = replace(PATH, optional=True, pattern=r"[^\0]*")
WEIGHTS = replace(PATH, called=f"{', '.join(SHIPPED)}, a classifier's run or a file of weights")
RATE = Rule(float, above=0, maximum=1e38)  # a little below the limit of float32
WORD = Rule(
    str,
    pattern=r"[A-Za-z0-9_][^\0]{0,199}",
    called="a name that begins with a letter or digit (200 signs at most)",
)
# of arguments of fmvae's own classes; a user's class may take other values under the same name
FITTED = ("gmm", "flow", "two_stage")
OURS: dict[str, Rule] = {
    "loss.num_samples": Rule(int, minimum=1, maximum=10**6),
    **dict.fromkeys(("loss.latent_dim", "loss.width"), COUNT),
    "loss.depth": DEPTH,
    "model.width": COUNT,
    "model.depth": DEPTH,
    "model.norm": Rule(str, choices=("group", "batch")),
    **dict.fromkeys(("loss.gamma", "loss.off_diagonal"), Rule(float, minimum=0)),
    "loss.diagonal": Rule(float, minimum=0, optional=True),
    "loss.alpha": Rule(float, minimum=-1e6, maximum=1e6),
    "loss.lam": Rule(float, minimum=0),
    "loss.lr": RATE,
    "loss.bandwidth": Rule(float, minimum=1e-6, maximum=1e6),  # its square is a float32
    "loss.variant": Rule(int, minimum=1, maximum=2),
    "loss.estimate": Rule(str, choices=("mss", "mws")),
    "loss.kernel": Rule(str, choices=("imq", "gaussian")),
    "loss.doubly_reparameterised": Rule(bool),
    **dict.fromkeys(("prior.latent_dim", "prior.num_components"), COUNT),
    "prior.transforms": DEPTH,
    "prior.hidden": Rule(list, of=int),
    "prior.bins": Rule(int, minimum=2, maximum=10_000),
    "prior.start": Rule(str, choices=("data", "noise")),
    "tracker.uri": Rule(str, optional=True, pattern=r"[^\s\0]+", called="the address of a server or store"),
    **dict.fromkeys(("tracker.experiment", "tracker.project"), WORD),
    "tracker.entity": replace(WORD, optional=True),
    "tracker.mode": Rule(str, choices=("offline", "online")),
    "tracker.timeout": Rule(float, above=0, maximum=600),
    "likelihood.scale": Rule(float, above=0),
    "likelihood.method": Rule(str, choices=("optimal", "trained")),
    "likelihood.start": Rule(float, above=0, maximum=1e6),  # its square is a float32
}
PARTS = ("fid", "extractor", "iwae", "decomposition", "disentanglement", "accuracy", "measures", *FITTED)
RULES: dict[str, Rule] = {
    **OURS,
    "seed": SIZE,
    "device": Rule(str),
    "workers": Rule(int, minimum=1, maximum=4096),
    "threads": Rule(int, minimum=1, maximum=4096, optional=True),
    **dict.fromkeys(("restart", "dry_run", "force"), Rule(bool)),
    "output_root": PATH,
    "sweep_name": Rule(
        str,
        pattern=r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}",
        optional=True,
        called="a name of letters, digits, '_', '.' and '-'",
    ),
    "objective": Rule(
        str, pattern=r"\w[^\0]*", many=True, called=f"{', '.join(WORDS)} or a number's tag, as fid/pixels/kid"
    ),
    "checkpoint": Rule(str, choices=("best", "last")),
    "beta.value": Rule(float, minimum=0),
    "beta.fraction": Rule(float, minimum=0, maximum=1),
    "beta.num_cycles": COUNT,
    "beta.max_capacity": Rule(float, minimum=0),
    "latent_dim.value": COUNT,
    **{f"{group}._name_": WORD for group in ("model", "loss", "prior")},
    "model.hidden_dim": COUNT,
    "model.latent_dim": COUNT,
    "model.num_classes": SIZE,  # copied from data.num_classes, which refuses 0
    "model.norm_order": Rule(str, choices=("relu_bn", "bn_relu")),
    "model.backbone": Rule(str, choices=("mlp", "conv", "residual")),
    "model.prior": Rule(str, choices=("standard", "learned")),
    "likelihood.sigma": Rule(float, above=0),
    **dict.fromkeys(("data.root", "data.download_to", "data.cache", "data_root"), FOLDER),
    "data.download": Rule(bool),
    "data.binarize": Rule(str, choices=("static", "dynamic"), optional=True),
    "data.num_classes": SIZE,  # 0 for data without labels
    "data.class_names": Rule(list, optional=True, of=str),
    "data.apart": Rule(list, optional=True, of=str),
    "data.seed": SIZE,
    **dict.fromkeys(("data.val_size", "data.batch_size", "data.version"), COUNT),
    **dict.fromkeys(("data.stratified", "data.grey"), Rule(bool)),
    "data.size": Rule(int, minimum=1, maximum=8192, optional=True, many=True),
    "data.split": Rule(str, choices=("balanced", "letters")),
    **dict.fromkeys(("data.num_train", "data.num_test"), Rule(int, minimum=1, optional=True)),
    "trainer.epochs": COUNT,
    "trainer.validate_every": COUNT,
    "trainer.patience": Rule(int, minimum=1, optional=True),
    "trainer.max_grad_norm": Rule(float, above=0, optional=True),
    "trainer.checkpoint_every": COUNT,
    "trainer.progress": Rule(bool),
    "trainer.start": FOLDER,
    "trainer.start_sha256": Rule(str, optional=True),
    "trainer.label_smoothing": Rule(float, minimum=0, below=1),
    "trainer.warmup": Rule(float, above=0, below=1),
    "trainer.shift": SIZE,
    "trainer.flip": Rule(bool),
    "trainer.blur": Rule(float, minimum=0, maximum=1),
    "trainer.sides": Rule(list, of=int),
    "trainer.prune": Rule(float, minimum=0, below=1),
    "trainer.precision": Rule(str, choices=("auto", "fp32", "tf32", "bf16")),
    "optimizer.lr": RATE,
    "optimizer.fused": Rule(bool, optional=True, spare=True),
    "optimizer.nesterov": Rule(bool, spare=True),
    "optimizer.weight_decay": Rule(float, minimum=0),
    "optimizer.momentum": Rule(float, minimum=0),
    "scheduler.T_max": COUNT,
    "scheduler.step_size": COUNT,
    "scheduler.patience": SIZE,
    "scheduler.gamma": Rule(float, above=0),
    "scheduler.factor": Rule(float, above=0),
    "scheduler.eta_min": Rule(float, minimum=0),
    **dict.fromkeys(("figures.every", "figures.projector"), SIZE),
    "figures.only": Rule(list, optional=True, of=str),
    "figures.num_reconstructions": Rule(int, minimum=1, maximum=1000),
    "figures.num_samples": Rule(int, minimum=1, maximum=10_000),
    "figures.manifold_side": Rule(int, minimum=2, maximum=100),
    "figures.traversal": Rule(dict),
    "figures.traversal.span": Rule(float, above=0, maximum=1000),
    "figures.traversal.steps": Rule(int, minimum=2, maximum=101),
    "figures.traversal.dimensions": Rule(list, optional=True, of=int),
    **dict.fromkeys(("figures.traversal.every_class", "figures.gif", "figures.explorer"), Rule(bool)),
    "figures.format": Rule(str, choices=("png", "pdf", "svg"), many=True),
    "figures.font": Rule(str, optional=True, pattern=r"[^\0]{1,200}", called="the name of a font"),
    "figures.font_size": Rule(float, minimum=4, maximum=40, optional=True),
    "figures.width": Rule(float, minimum=3, maximum=40, optional=True),
    "figures.dpi": Rule(int, minimum=30, maximum=1200),
    **{f"evaluation.{name}": Rule(dict) for name in PARTS},
    "evaluation.fid.num_images": ANY_SIZE,
    "evaluation.fid.features": Rule(list, of=str),
    "evaluation.fid.num_train": Rule(int, minimum=1, optional=True),
    "evaluation.extractor.weights": WEIGHTS,
    "evaluation.extractor.precision": Rule(str, choices=("fp32", "bf16", "auto")),
    "evaluation.iwae.num_samples": SIZE,
    **dict.fromkeys(("evaluation.iwae.num_images", "evaluation.fid.num_neighbours"), COUNT),
    "evaluation.latent": Rule(bool),
    "evaluation.decomposition.num_samples": Rule(int, minimum=0, maximum=10**9),
    **dict.fromkeys(("evaluation.accuracy.num_per_class", "evaluation.disentanglement.num_train"), ANY_SIZE),
    "evaluation.disentanglement.num_test": Rule(int, minimum=2, optional=True),
    "evaluation.disentanglement.num_groups": Rule(int, minimum=0, maximum=100_000),
    "evaluation.disentanglement.group_size": Rule(int, minimum=2, maximum=10_000),
    "evaluation.disentanglement.seed": Rule(int, minimum=0, maximum=2**32 - 1),
    "evaluation.accuracy.weights": WEIGHTS,
    "evaluation.samplers": Rule(list, choices=SAMPLERS),
    "evaluation.gmm.num_components": Rule(int, minimum=1, maximum=100_000, many=True),
    # 0 would be no density; above 1 is allowed, so that a search can see that 1 is best
    "evaluation.gmm.temperature": Rule(float, minimum=0.01, maximum=2),
    "evaluation.flow.transforms": DEPTH,
    "evaluation.flow.bins": Rule(int, minimum=2, maximum=10_000),
    **{f"evaluation.{name}.hidden": Rule(list, of=int, minimum=1, maximum=10_000) for name in FITTED[1:]},
    **{f"evaluation.{name}.epochs": Rule(int, minimum=1, maximum=100_000) for name in FITTED[1:]},
    "evaluation.cache": FOLDER,
}


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """Check ``config`` and convert every value that has a rule to its type, in place; return it.

    So 1 and 1.0 give the same run.

    Raises:
        ConfigError: a value is of the wrong type or out of range; the message names the key.
    """
    for key, rule in RULES.items():
        *parents, leaf = key.split(".")
        node: Any = config
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf not in node:
            continue
        if key in OURS and not str(node.get("_target_", "fmvae.")).startswith("fmvae."):
            continue
        try:
            node[leaf] = rule.accept(node[leaf])
        except OverflowError:
            raise ConfigError(key, f"{shown(node[leaf])} is too large", f"give {rule}") from None
        except ValueError:
            value, way_out = node[leaf], rule.way_out(node[leaf])
            if rule.type is str and not rule.choices and isinstance(value, float | bool):
                way_out = f'quote it in a file, as {leaf}: "{value}"'
            raise ConfigError(key, f"{shown(value)} is not {rule}", way_out) from None
    for path, value in walk(config):  # a run's identity is computed from JSON
        plain = isinstance(value, dict | list | str | int | float | None)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(path, f"{value!r} is not a plain value", "give a text, a finite number or null")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise ConfigError(path or "config", "holds a key that is not a text", "quote it")
    return config


def shown(value: Any) -> str:
    """Return a value as messages show it: null, true and false as in YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    text = repr(value)
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``node`` and every node inside it, each with its path."""
    yield path, node
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from walk(child, f"{path}.{name}".lstrip("."))


def is_tree(config: Any) -> bool:
    """Return whether no node occurs twice. Otherwise YAML aliases can make billions of nodes, or a cycle."""
    seen, waiting = set(), [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            if id(node) in seen:
                return False
            seen.add(id(node))
            waiting.extend(node.values() if isinstance(node, dict) else node)
    return True
