"""What an explorer shows of trained runs, as JSON and bytes: decoders, dimensions, test images, draws, a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fmvae import rng
from fmvae.common.class_names import readable
from fmvae.data import ImageData
from fmvae.errors import RunError
from fmvae.explore.builder import NotForThePage
from fmvae.explore.graph import decoder, traced
from fmvae.explore.lowering import Lowering
from fmvae.explore.packing import Blob, Halves
from fmvae.models.posterior import Posteriors
from fmvae.visualization import Source, VAEVisualizer
from fmvae.visualization.latent import class_colours, ranking

PER_CLASS, MOST_IMAGES = 3, 60  # test images to start from: of each class, and in all
DRAWS, LEAST_DRAWS = 256, 32  # of a sampler: in all, and of each class
POINTS = 2000  # test images on the map of a model with z = 2
TRIED = 256  # latents at which pixels are compared with the model's
SPAN = 3  # sliders reach so many standard deviations of the aggregate posterior from its mean


@dataclass(frozen=True)
class Subject:
    """A trained run to explore.

    Args:
        name: of the run.
        visualizer: with the trained model.
        label: what tells it from the other runs; empty for one run.
        facts: names and values to show, as ``("−ELBO", "240.1 nats")``.
        sources: by sampler, a function that gives what it draws from; ``prior`` is there without being named.
        posteriors: of the test split; None computes them.
    """

    name: str
    visualizer: VAEVisualizer
    data: ImageData
    label: str = ""
    facts: Sequence[tuple[str, str]] = ()
    sources: Mapping[str, Callable[[], Source]] = field(default_factory=dict)
    posteriors: Posteriors | None = None


def content_of(
    subjects: Sequence[Subject], left_out: Sequence[tuple[str, str]] = ()
) -> tuple[dict[str, Any], Blob]:
    """Return the data of a page, JSON values that refer to places in a blob.

    Args:
        left_out: names of further runs, and why they are not shown.

    Raises:
        RunError: a decoder cannot run in a page, or runs have other test images than the first.
    """
    first, blob = subjects[0], Blob()
    test = first.data.test
    for other in subjects[1:]:
        theirs = other.data.test
        if theirs.images.shape != test.images.shape or not torch.equal(theirs.images, test.images):
            problem = f"its test images are not those of {first.name}"
            raise RunError(other.name, problem, "explore runs of one dataset at a time")
    num_classes = first.data.num_classes if first.data.labelled else 0
    names = first.visualizer.class_names or () if num_classes else ()
    chosen = test.round_robin(min(MOST_IMAGES, PER_CLASS * max(1, num_classes) if num_classes else 24))
    chosen = chosen[test.labels[chosen].sort(stable=True).indices]
    return {
        "shape": list(first.visualizer.image_shape),
        "classes": list(readable(names)),
        "wholeNames": list(names),
        "colours": [_hex(colour) for colour in class_colours(first.visualizer)],
        "images": {
            "pixels": blob.add(test.images[chosen], "u8"),
            "labels": test.labels[chosen].tolist(),
            "numbers": chosen.tolist(),
        },
        "runs": [_run(subject, chosen, blob, alone=len(subjects) == 1) for subject in subjects],
        "leftOut": [list(one) for one in left_out],
        "span": SPAN,
    }, blob


def _hex(colour: Any) -> str:
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in colour[:3])


def _run(subject: Subject, chosen: Tensor, blob: Blob, *, alone: bool) -> dict[str, Any]:
    view, data = subject.visualizer, subject.data
    posteriors = subject.posteriors or view.posteriors(data.test)
    mu, logvar = posteriors.mu.cpu().double(), posteriors.logvar.cpu().double()
    mean = mu.mean(0)
    std = ((mu - mean).square().mean(0) + logvar.exp().mean(0)).sqrt()
    prior = view.prior()
    ranked = ranking(posteriors, prior)
    try:
        program = _program(subject, _tried(mean, std, mu, view.seed)).packed(blob)
    except NotForThePage as refused:
        name = type(view.model).__name__
        problem = f"the decoder of {name} has an operation that the explorer cannot run: {refused}"
        raise RunError(subject.name, problem, "fmvae/explore/rules.py lists those that it can") from None
    found = {
        "name": subject.name,
        "model": view.name,
        "label": subject.label,
        "facts": [list(fact) for fact in subject.facts],
        "conditional": view.conditional,
        "program": program,
        "order": ranked.order(),
        "scores": [round(float(score), 4) for score in ranked.scores],
        "score": ranked.symbol,
        "mean": mean.tolist(),
        "std": std.tolist(),
        "mu": blob.add(mu[chosen.cpu()], "f32"),
        "draws": _draws(subject, blob, standard=prior.is_standard),
    }
    if alone and view.latent_dim == 2:
        found["map"] = {
            "points": blob.add(mu[:POINTS], "f32"),
            "labels": blob.add(posteriors.labels[:POINTS], "u16"),
        }
    return found


def _program(subject: Subject, z: Tensor) -> Halves:
    """Return the decoder's operations, once they give the images of the model."""
    view = subject.visualizer
    labels = range(subject.data.num_classes) if view.conditional else [None]
    functions = [decoder(view.model, view.likelihood, label) for label in labels]
    try:
        graphs = [traced(function, view.latent_dim) for function in functions]
    except Exception as error:  # whatever a user's model does with tensors that the tracer cannot follow
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotForThePage(f"one that torch cannot trace ({detail})") from None
    program = Lowering(graphs, view.latent_dim, view.image_shape).lowered()

    def decode(z: Tensor, label: int) -> Tensor:
        return torch.cat([functions[label](row[None]) for row in z])

    with torch.no_grad():
        return Halves(program, decode, z)


def _tried(mean: Tensor, std: Tensor, mu: Tensor, seed: int) -> Tensor:
    """Return latents (N, z) from where people look: within the sliders' reach, and posterior means."""
    generator = rng.stream(seed, "sampling")
    uniform = torch.rand((TRIED // 2, len(mean)), generator=generator, dtype=torch.float64)
    own = mu[torch.randint(len(mu), (TRIED // 2,), generator=generator)]
    z = torch.cat([mean + SPAN * (2 * uniform - 1) * std, own]).float()
    return z[torch.randperm(TRIED, generator=generator)]  # classes have their share of both


def _draws(subject: Subject, blob: Blob, *, standard: bool) -> list[dict[str, Any]]:
    """Return the sources of random draws. N(0, 1) is drawn by the page; of others it has some draws, made here."""
    view = subject.visualizer
    sources: dict[str, Source | None] = {"prior": None}
    sources |= {name: source() for name, source in subject.sources.items() if name != "prior"}
    found = []
    for name, source in sources.items():
        words = (
            "the prior, N(0, 1)" if source is None and standard else source.name if source else "the learned prior"
        )
        entry: dict[str, Any] = {"name": name, "words": words, "rows": 1}
        if source is not None or not standard:
            of_class = view.conditional and source is not None
            rows = subject.data.num_classes if of_class else 1
            number = max(LEAST_DRAWS, DRAWS // rows)
            labels = torch.arange(rows, device=view.weight.device).repeat_interleave(number) if of_class else None
            z = view.sample_latents(rows * number, labels, source)
            entry |= {"rows": rows, "z": blob.add(z, "f16" if z.abs().max() < 1000 else "f32")}
        found.append(entry)
    return found
