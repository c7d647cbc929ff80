"""The block ``disentanglement``: how latents follow the known factors of the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fmvae import rng
from fmvae.data import Split
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import BLOCKS, RENDERED, Column
from fmvae.evaluation.disentanglement import (
    DCI,
    beta_vae_score,
    dci,
    explicitness,
    factor_vae_score,
    infoc,
    infom,
    mig,
    modularity,
    mutual_information,
    sap,
)
from fmvae.evaluation.measure import Context
from fmvae.evaluation.notes import LeftOut
from fmvae.evaluation.planned import BuiltIn
from fmvae.models import VAE, encode_split

NUM_TRAIN, NUM_TEST = 10_000, 5_000  # by default, as in Locatello et al. 2019
SHUFFLE, FACTOR_VAE, BETA_VAE = 2, 3, 4  # parts of the seed's stream
FEWER = 5  # of the points, the part on which DCI's chance level is fitted
# by content: runs of a sweep begin with the same weights for each seed, and DCI takes half a minute
UNTRAINED: dict[bytes, dict[str, float]] = {}
KEYS = ("num_train", "num_test", "num_groups", "group_size", "seed")


class Disentanglement(BuiltIn):
    """Scores of the posterior means of training and test images, and the levels to compare them with.

    The levels are the scores with shuffled factors (``chance``), and those of the model before training, if it is
    known (``untrained``): random features of images follow some factors.

    Args:
        num_train, num_test: images, in a fixed random order; predictors are fitted on the first and tested on the
            others.
        num_groups: groups of rendered images that FactorVAE's and beta-VAE's scores are fitted on, and as many to
            test; 0 leaves both scores out.
        group_size: images, or pairs of images, in a group.
        seed: of shuffles, trees and rendered factors; it is not the run's, so that runs are compared on the same.
        untrained: whether the model before training is known.
    """

    name = "disentanglement"
    needs = ("factors",)
    takes_minutes = True
    off: ClassVar = {"disentanglement": {"num_train": 0}}
    way_in = "take data with factors, and leave evaluation.disentanglement.num_train null"

    def __init__(
        self,
        num_train: int,
        num_test: int,
        num_groups: int,
        group_size: int,
        seed: int,
        *,
        untrained: bool = False,
    ):
        self.num_train, self.num_test, self.seed = num_train, num_test, seed
        self.num_groups, self.group_size, self.untrained = num_groups, group_size, untrained

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        settings = evaluation.get("disentanglement", cls.off["disentanglement"])
        if settings["num_train"] == 0:
            return
        if reason := _unfit(context):
            if "factors" in context.offers or settings["num_train"]:  # else nobody asked for it
                context.notes.append(LeftOut(cls.name, {cls.name: [cls.name]}, reason))
            return
        usual = {"train": (NUM_TRAIN, context.data.train), "test": (NUM_TEST, context.data.test)}
        sizes = {
            f"num_{name}": _size(f"num_{name}", settings[f"num_{name}"], usual_size, split)
            for name, (usual_size, split) in usual.items()
        }
        num_groups, group_size = settings["num_groups"], settings["group_size"]
        if num_groups and (reason := _cannot_render(context)):
            context.notes.append(f"the scores of FactorVAE and beta-VAE are left out: {reason}")
            num_groups = 0
        known = context.untrained is not None
        yield cls(**sizes, num_groups=num_groups, group_size=group_size, seed=settings["seed"], untrained=known)

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"disentanglement": settings}

    @property
    def settings(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in KEYS}

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        left_out = () if self.num_groups else RENDERED
        columns = (column for column in BLOCKS[self.name] if column.tag.split("/")[-1] not in left_out)
        return tuple(column for column in columns if self.untrained or not column.tag.startswith("untrained/"))

    def compute(self, context: Context) -> dict[str, Any]:
        from threadpoolctl import threadpool_limits

        data, threads = context.data, torch.get_num_threads()
        train_images, test_images = (
            self._chosen(split, num) for split, num in ((data.train, self.num_train), (data.test, self.num_test))
        )
        codes, factors = _points(context.model, train_images)
        test = _points(context.model, test_images)
        shuffle = rng.stream(self.seed, "evaluation", SHUFFLE)
        order, test_order = (torch.randperm(len(part), generator=shuffle).numpy() for part in (codes, test[0]))
        shuffled, test_shuffled = factors[order], (test[0], test[1][test_order])
        with threadpool_limits(1):  # sums of more threads would have other bits
            fit = dci(codes, factors, test, seed=self.seed, threads=threads)
            few, few_test = (max(len(part) // FEWER, 2) for part in (codes, test[0]))
            fewer_test = test[0][:few_test], test_shuffled[1][:few_test]
            chance = dci(codes[:few], shuffled[:few], fewer_test, seed=self.seed, threads=threads)
            block = {
                **_scores(codes, factors, test, fit),
                "chance": _scores(codes, shuffled, test_shuffled, chance),
            }
            if self.num_groups:
                rendered = self._rendered(context, context.model)
                block |= rendered
                varied = sum(size > 1 for size in data.factor_sizes)
                block["chance"] |= dict.fromkeys(rendered, 1 / varied)
            if context.untrained:
                block["untrained"] = self._untrained(context, train_images, test_images)
        return {
            **block,
            "factors": list(data.factor_names),
            "mutual_information": mutual_information(codes, factors).tolist(),
            "importance": fit.importance.tolist(),
            "num_images": len(codes) + len(test[0]),
        }

    def _untrained(self, context: Context, train: Split, test: Split) -> dict[str, float]:
        """Return the scores of the model before training, which are computed once in a process for equal codes."""
        assert context.untrained
        begun = context.untrained().eval()
        own, own_test = _points(begun, train), _points(begun, test)
        key = hashlib.sha256(repr(self.settings).encode())
        for part in (*own, *own_test):
            key.update(repr(part.shape).encode() + part.tobytes())
        if (known := UNTRAINED.get(key.digest())) is None:
            known = _scores(*own, own_test, dci(*own, own_test, seed=self.seed, threads=torch.get_num_threads()))
            known |= self._rendered(context, begun) if self.num_groups else {}
            UNTRAINED[key.digest()] = known
        return dict(known)

    @staticmethod
    def _chosen(split: Split, num: int) -> Split:
        """Return ``num`` images in a fixed random order."""
        return split.take(torch.randperm(len(split), generator=rng.stream(0, "evaluation"))[:num])

    def _rendered(self, context: Context, model: VAE) -> dict[str, float]:
        data = context.data

        def codes_of(factors: Tensor) -> Tensor:
            images = data.render(factors).to(context.device)
            unlabelled = torch.zeros(len(images), dtype=torch.int64, device=context.device)
            return encode_split(model, Split("rendered", images, unlabelled)).mu

        size = {"num_train": self.num_groups, "num_test": self.num_groups, "group_size": self.group_size}
        made = zip(RENDERED, (factor_vae_score, beta_vae_score), (FACTOR_VAE, BETA_VAE), strict=True)
        return {
            name: score(codes_of, data.factor_sizes, rng.stream(self.seed, "evaluation", part), **size)
            for name, score, part in made
        }


def _points(model: VAE, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes (N, D) and factors (N, K) of all images of a split."""
    assert split.factors is not None
    return encode_split(model, split).mu.cpu().double().numpy(), split.factors.cpu().numpy()


def _scores(
    codes: np.ndarray, factors: np.ndarray, test: tuple[np.ndarray, np.ndarray], fit: DCI
) -> dict[str, Any]:
    return {
        "mig": mig(codes, factors),
        "sap": sap(codes, factors, test),
        "dci_disentanglement": fit.disentanglement,
        "dci_completeness": fit.completeness,
        "dci_informativeness": fit.informativeness,
        "modularity": modularity(codes, factors),
        "explicitness": explicitness(codes, factors, test),
        "infom": infom(codes, factors),
        "infoc": infoc(codes, factors),
    }


def _unfit(context: Context) -> str:
    """Return why no score is defined; empty if all are."""
    data = context.data
    if "factors" not in context.offers:
        return "the data have no factors"
    if context.model.latent_dim < 2:
        return "it compares latent dimensions, and the model has one"
    if sum(size > 1 for size in data.factor_sizes) < 2:
        return "it compares factors, and fewer than two of the data's have several values"
    return ""


def _cannot_render(context: Context) -> str:
    if context.model.conditional:
        return "rendered images have no labels, which this model needs"
    return "" if context.data.renders else "the data cannot render given factors"


def _size(name: str, asked: int | None, usual: int, split: Split) -> int:
    """Return the number of images; by default ``usual``, or all if there are fewer."""
    if asked is None:
        return min(usual, len(split))
    if asked > len(split):
        key = f"evaluation.disentanglement.{name}"
        raise ConfigError(key, f"{asked} images of a split that holds {len(split)}", "give fewer, or null")
    return asked
