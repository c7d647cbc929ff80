"""What the log says of measures: its hints work, numbers from before are called kept, and long ones begin."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmvae.config import compose
from fmvae.data import ImageData
from fmvae.data.fashion_mnist import CONTENT
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.evaluation import measure as given
from fmvae.evaluation.notes import LeftOut
from fmvae.evaluation.registry import BUILT_IN
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.objectives import ELBO, Bernoulli, Constant

OFF = ["evaluation.iwae.num_samples=0", "evaluation.latent=false", "evaluation.decomposition.num_samples=0"]
OFF += ["evaluation.cache=null", "evaluation.samplers=[]"]
SETTING = re.compile(r"'?(evaluation\.[\w.]+=[^\s']+)'?")


class Network:
    """Stands for a classifier of any data."""

    name = "resnet18"

    def __init__(self, weights: str, *_: Any):
        self.identity = {"extractor_sha256": Path(weights).stem}


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr(given, "ResNetFeatures", Network)


def images(num: int, side: int, *, garments: bool = True, channels: int = 1) -> ImageData:
    """As many training as test images."""
    shape = (num, channels, side, side)
    drawn = np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.arange(num) % 2
    data = ImageData(train=drawn, val=(drawn[0][:5], drawn[1][:5]), test=drawn, num_classes=2, batch_size=5)
    vars(data)["content"] = CONTENT if garments else ""
    return data


def evaluator(data: ImageData, *overrides: str, conditional: bool = False) -> Evaluator:
    model = (ConditionalVAE if conditional else BaseVAE)(2, hidden_dim=4, image_shape=data.image_shape)
    settings = compose([*OFF, *overrides])["evaluation"]
    return Evaluator(model, ELBO(Bernoulli(), Constant(1.0)), data, seed=0, settings=settings)


def noted(made: Evaluator, caplog, *stored: Mapping[str, Any] | Sequence[str]) -> list[str]:
    caplog.clear()
    with caplog.at_level("INFO", "fmvae"):
        next(made.measure(*stored))  # type: ignore[arg-type]
    return [line for line in caplog.messages if line.startswith(("FID", "the accuracy"))]


def needs(dim: int, num: int) -> str:
    return f" is left out: it needs more than {dim:,} images, and the test split holds {num:,}"


@pytest.mark.parametrize(
    ("num", "side", "garments", "hinted"),
    [
        (6, 3, True, []),
        (12, 3, True, ["pixels"]),
        (12, 4, True, []),
        (513, 3, True, ["resnet18", "pixels"]),
        (513, 23, True, ["resnet18"]),  # 529 pixels
        (513, 3, False, ["pixels"]),
        (513, 23, False, []),
    ],
)
def test_what_the_log_says_turns_a_distance_on_does_so(num, side, garments, hinted, caplog):
    data = images(num, side, garments=garments)
    lines = noted(evaluator(data), caplog)
    (hint,) = [line for line in lines if line.endswith(" turns it on")] or [""]
    assert bool(hint) == bool(hinted)
    if hinted:
        assert hint.startswith(f"FID ({', '.join(hinted)}) is left out: {num} images are too few to compare")
        made = evaluator(data, *SETTING.findall(hint))
        assert [name for name in made.plan() if name != "test"] == [f"fid/{name}" for name in hinted]
        assert noted(made, caplog) == []
    dims = {"resnet18": 512, "pixels": side**2}
    lacking = [f"FID ({name}){needs(dim, num)}" for name, dim in dims.items() if num <= dim]
    assert [line for line in lines if "needs more" in line] == lacking
    if len(hinted) < 2:  # the control: the number alone is no way in for all features that are asked for
        with pytest.raises(ConfigError):
            evaluator(data, f"evaluation.fid.num_images={num}")


def test_a_classifier_is_no_way_out_where_its_features_need_more_images_than_there_are(caplog):
    (few, _) = noted(evaluator(images(12, 4, garments=False)), caplog)
    assert few == "FID (resnet18)" + needs(512, 12)
    way = "with evaluation.fid.num_images=513 'evaluation.fid.features=[resnet18]'"
    (enough, other) = noted(evaluator(images(513, 23, garments=False)), caplog)
    assert enough.endswith(
        f"trains a classifier of these data, and evaluation.extractor.weights=<its run> uses it {way}"
    )
    assert other == "FID (pixels)" + needs(529, 513)
    followed = [*SETTING.findall(way), f"evaluation.extractor.weights={__file__}"]
    assert [*evaluator(images(513, 23, garments=False), *followed).plan()] == ["test", "fid/resnet18"]


def test_neighbours_count_as_images_that_a_distance_needs(caplog):
    data, many = images(12, 3), "evaluation.fid.num_neighbours=12"
    assert noted(evaluator(data, many), caplog)[1] == "FID (pixels)" + needs(12, 12)
    assert noted(evaluator(data, "evaluation.fid.num_neighbours=11"), caplog)[0].endswith("turns it on")


def test_numbers_from_an_earlier_call_are_called_kept(caplog):
    data = images(12, 3)
    made = evaluator(data, conditional=True)
    pixels, resnet, accuracy = (line.partition(": ") for line in noted(made, caplog))
    assert [part[0] for part in (pixels, resnet, accuracy)] == [
        "FID (pixels) is left out",
        "FID (resnet18) is left out",
        "the accuracy of generated images is left out",
    ]
    kept = "is not measured again, and its numbers from an earlier call are kept"
    told = [line.partition(": ") for line in noted(made, caplog, {}, ["fid/pixels", "accuracy"])]
    assert (
        told
        == [
            (f"FID (pixels) {kept}", *pixels[1:]),
            resnet,  # the control
            (f"the accuracy of generated images {kept}", *accuracy[1:]),
        ]
    )


def test_a_note_divides_what_is_kept_from_what_is_not_there():
    note = LeftOut(
        "FID of samples from {}", {name: [f"{name}/pixels", f"{name}/resnet18"] for name in "ab"}, "why"
    )
    assert [*note.lines()] == [str(note)] == ["FID of samples from a, b is left out: why"]
    other, kept = note.lines(["b/resnet18"])
    assert other == "FID of samples from a is left out: why"
    assert kept.startswith("FID of samples from b is not measured again")
    assert len([*note.lines(["a/pixels", "b/pixels"])]) == 1


def test_a_measure_that_may_take_minutes_has_a_line_when_it_begins(caplog):
    made = evaluator(images(12, 3), "evaluation.iwae.num_samples=2", "evaluation.latent=true")
    seen = {}

    def looking(name: str, compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda context: seen.update({name: caplog.text}) or compute(context)

    for name, measure in made.measures.items():
        vars(measure)["compute"] = looking(name, measure.compute)
    with caplog.at_level("INFO", "fmvae"):
        blocks = dict(made.measure())
    assert list(seen) == ["test", "iwae", "latent"]
    assert "  measuring iwae" in seen["iwae"]
    assert "measured iwae" not in seen["iwae"]
    assert caplog.text.count("  measuring ") == 1  # the controls: a short one has none, nor has a kept one
    caplog.clear()
    with caplog.at_level("INFO", "fmvae"):
        list(made.measure(blocks))
    assert "measuring" not in caplog.text
    long = {name for name, kind in BUILT_IN.items() if kind.takes_minutes}
    assert long == {"iwae", "fid", "disentanglement", "accuracy", "samplers"}
