"""Train and test the classifier, and write its weights in the format of the shipped ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from fmvae import rng
from fmvae.assembly import build_data
from fmvae.config.building import build
from fmvae.config.identity import RunIdentity
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.accuracy import accuracies, confusion
from fmvae.experiments.experiment import Experiment, optimization
from fmvae.models import FashionResNet18
from fmvae.models.resnet import LoadedClassifier, load_classifier, save_classifier
from fmvae.runs.checkpoint import load_checkpoint, load_module
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import write_record
from fmvae.runs.provenance import provenance
from fmvae.runs.recorder import Album, Layout
from fmvae.runs.resuming import check_owner
from fmvae.training import ClassifierTrainer, classify
from fmvae.visualization import classifier_curves, confusion_matrix
from fmvae.weights import CARD, WEIGHTS, weights_of_run

LAYOUT = {
    "training": {
        "loss": ("(train|val)/loss$",),
        "accuracy": ("(train|val)/accuracy$",),
        "learning rate": ("schedule/lr$",),
    },
}


class ClassifierExperiment(Experiment):
    """FashionResNet18, trained to predict the class of an image."""

    # metrics stays empty, and TensorBoard then shows all: a list could replace that of VAEs in the same folder
    layout: Layout = LAYOUT

    start: Mapping[str, Any] | None = None  # the source of the initial weights; None if random

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        self.config = config
        self.data = data = build_data(config, device)
        if not data.labelled:
            raise ConfigError("data", "no labels, but the classifier learns them", "choose data with labels")
        self.class_names = data.class_names or ()
        channels = data.image_shape[0]
        if (found := config["model"].get("channels", channels)) != channels:
            problem = f"{found!r}, but the images have {channels}"
            raise ConfigError("model.channels", problem, "leave it out; it follows data.image_shape")
        with rng.seeded_init(config["seed"]):
            # no key of the config, as data.image_shape is one, and grey classifiers are named without it
            more = {} if channels == 1 else {"channels": channels}
            model = build(config["model"], "model", FashionResNet18, **more)
        start, named = config["trainer"]["start"], config["trainer"]["start_sha256"]
        loaded = self._loaded(start) if start is not None else None
        if named != (loaded and loaded.sha256):
            problem = f"{start!r} does not have the SHA-256 {named}"
            raise ConfigError("trainer.start_sha256", problem, "leave the key out: it follows from the file")
        if loaded:
            model.load_state_dict(loaded.model.state_dict())
            self.start = {"weights": start, "sha256": loaded.sha256, "run": loaded.card.get("run")}
        self.model = model.to(device)
        optimizer, _ = optimization(config, self.model.parameters())
        own = ("label_smoothing", "warmup", "shift", "flip", "blur", "sides", "prune", "precision")
        shared = ("epochs", "validate_every", "patience", "max_grad_norm")
        settings = {name: config["trainer"][name] for name in (*shared, *own)}
        self.trainer = ClassifierTrainer(self.model, data, optimizer, seed=config["seed"], **settings)
        self.hparams = {
            "model": config["model"]["_name_"],
            "epochs": config["trainer"]["epochs"],
            "batch_size": data.batch_size,
            "lr": config["optimizer"]["lr"],
            "seed": config["seed"],
        }

    def _loaded(self, start: str) -> LoadedClassifier:
        """Read the initial weights.

        Raises:
            ConfigError: they are missing, damaged, or of a classifier of other images.
        """
        try:
            return load_classifier(start, self.data.num_classes, self.data.image_shape[0])
        except RunError as error:
            raise ConfigError("trainer.start", f"{error.subject}: {error.problem}", error.way_out) from None

    def measure(self, run: RunDirectory, identity: RunIdentity, album: Album) -> None:
        """Test the best weights, rounded to float16, and write them with their card."""
        checkpoint = load_checkpoint(run.best)
        check_owner(run.best, checkpoint, identity.sha256)
        model, data = self.model, self.data
        rounded = {k: t.half().float() if t.is_floating_point() else t for k, t in checkpoint.tensors.items()}
        load_module(model, rounded)
        logits = classify(model, data.test)
        counts = confusion(data.test.labels.cpu().numpy(), logits.cpu().numpy())
        test = accuracies(counts, self.class_names)
        loss = F.cross_entropy(logits.double(), data.test.labels).item()
        epoch = checkpoint.meta["epoch"]
        card = {
            "run": run.path.name,
            "config_sha256": identity.sha256,
            "config": checkpoint.meta["config"],
            "start": self.start,
            "checkpoint": {"which": "best", "epoch": epoch, "sha256": checkpoint.sha256},
            "validation": checkpoint.meta["history"][epoch - 1],
            "test": {"loss": loss, "accuracy": test.pop("overall"), **test},
            "provenance": {
                "training": checkpoint.meta["provenance"],
                "evaluation": provenance(data.device, self.config),
                "data_sha256": data.sha256,
            },
        }
        file_sha256 = save_classifier(run.path / WEIGHTS, model, card)
        write_record(run.path / CARD, {"sha256": file_sha256, **card})
        title = f"{run.path.name}, epoch {epoch}: test accuracy {card['test']['accuracy']:.2%}"
        album.figure("confusion", confusion_matrix(counts, self.class_names, title))
        album.figure("training_curves", classifier_curves(checkpoint.meta["history"]))
        write_record(run.results, card)
        album.show({"test/loss": loss, "test/accuracy": card["test"]["accuracy"]}, epoch)

    @staticmethod
    def describe(run: RunDirectory, results: Mapping[str, Any]) -> str:
        test = results["test"]
        weights = weights_of_run(run.path) or run.path / WEIGHTS
        lines = [
            "",
            f"{run.path.name}: best checkpoint, epoch {results['checkpoint']['epoch']}, rounded to float16",
            "",
            f"  test accuracy {test['accuracy']:.2%} of {test['num_images']:,} images, loss {test['loss']:.4f}",
            *(f"    {name:<16}{share:>8.1%}" for name, share in test["per_class"].items() if share is not None),
            "",
            f"  weights      {run}/{weights.name}",
            f"  card         {run}/{weights.with_suffix('.json').name}",
            f"  figures      {run}/figures/",
            f"  to use it    evaluation.extractor.weights={run}",
            "",
        ]
        return "\n".join(lines)
