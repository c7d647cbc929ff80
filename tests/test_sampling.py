"""The samplers of a run where they are shown: figures, Python, the terminal, and the check of its files."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmvae import rng
from fmvae.config import compose
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import SAMPLERS
from fmvae.evaluation.features import Pixels
from fmvae.evaluation.samplers import make_sampler
from fmvae.evaluation.samplers.gmm import GaussianMixtureSampler
from fmvae.experiments import train
from fmvae.measurement import LoadedRun, load_run
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.sampling import in_words
from fmvae.measurement.summary import describe
from fmvae.measurement.verification import verify
from fmvae.runs.directory import RunDirectory, find_runs
from fmvae.runs.files import read_record
from fmvae.weights import SHIPPED
from tests.idx import write_idx_dataset

SMALL = ["evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=20", "evaluation.cache=null"]
GMM = "evaluation.gmm.num_components=3"
PICTURES = [
    "figures.only=[samples,samples_gmm]",
    "figures.num_samples=20",
    "figures.gif=false",
    "figures.projector=0",
]
FITTED = "samplers/gmm.safetensors"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, Path]:
    """A run of one epoch of a conditional model, and one of a model without labels; with a mixture of 3."""
    root = tmp_path_factory.mktemp("sampling")
    sha256 = write_idx_dataset(root / "data", 400, 200)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={root}/data", f"data.sha256={{{digests}}}", "data.download=false", "data.val_size=50"]
    found = {}
    for kind in ("conditional", "base"):
        model = [f"model={kind}", "model.hidden_dim=16", "latent_dim=3", "trainer.epochs=1", "device=cpu"]
        train(compose([*data, *model, *SMALL, GMM, *PICTURES, f"output_root={root}/outputs"]))
        (found[kind],) = (root / "outputs").glob(f"{kind}-*")
    return found


def copy_of(trained: Path, folder: Path) -> Path:
    return Path(shutil.copytree(trained, folder / trained.name))


@pytest.fixture
def run(worlds, tmp_path) -> Path:
    return copy_of(worlds["conditional"], tmp_path)


@pytest.fixture
def fits(monkeypatch) -> list[Any]:
    """The settings of each fit of a mixture, in order."""
    seen: list[Any] = []

    def fit(self, *arguments, fit=GaussianMixtureSampler.fit, **options):
        seen.append(self.num_components)
        fit(self, *arguments, **options)

    monkeypatch.setattr(GaussianMixtureSampler, "fit", fit)
    return seen


def evaluate(run: Path, *overrides: str) -> dict[str, Any]:
    (results,) = evaluate_runs(compose([f"run={run}", *SMALL, GMM, *PICTURES, *overrides], "evaluate"))
    return results


def picture(run: Path) -> bytes:
    return (run / "figures" / "samples_gmm.png").read_bytes()


# --- figures of a run ---------------------------------------------------------------------------------------


def test_training_draws_samples_of_the_default_samplers(worlds):
    for trained in worlds.values():
        names = {"samples.png", "samples_gmm.png", "index.json"}
        assert {path.name for path in (trained / "figures").iterdir()} == names
        assert read_record(trained / "figures" / "index.json")["samplers"] == {"gmm": {"num_components": 3}}
        assert (trained / FITTED).exists()


def test_measures_and_figures_share_one_fit(run, fits):
    (run / FITTED).unlink()
    evaluate(run, "force=true", "figures.gif=true")
    assert fits == [3]
    (run / "figures" / "index.json").unlink()
    evaluate(run, "evaluation.iwae.num_images=10")
    assert fits == [3]  # from the file
    # negative controls: other settings are another fit, and force computes everything anew
    evaluate(run, "evaluation.gmm.num_components=2")
    assert fits == [3, 2]
    evaluate(run, "evaluation.gmm.num_components=2", "force=true")
    assert fits == [3, 2, 2]


def test_figures_are_drawn_again_if_their_samplers_change(run):
    before, samples = picture(run), (run / "figures" / "samples.png").read_bytes()
    index = read_record(run / "figures" / "index.json")
    off = "evaluation.iwae.num_samples=0"  # so that no number is new
    evaluate(run, off)
    assert read_record(run / "figures" / "index.json") == index
    evaluate(run, off, "evaluation.gmm.num_components=1")
    assert picture(run) != before
    assert (run / "figures" / "samples.png").read_bytes() == samples
    evaluate(run, off)
    assert picture(run) == before
    # a figure that shows none is not drawn again
    only = "figures.only=[samples]"
    evaluate(run, off, only)
    stamp = (run / "figures" / "samples.png").stat().st_mtime_ns
    evaluate(run, off, only, "evaluation.gmm.num_components=1")
    assert (run / "figures" / "samples.png").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("off", ["evaluation.samplers=[]", "evaluation.samplers=[prior]", "figures=none"])
def test_without_samplers_or_figures_nothing_is_fitted(off, run, fits):
    (run / FITTED).unlink()
    (run / "figures" / "samples_gmm.png").unlink()
    figures = "figures=none" if off == "figures=none" else "figures.only=[samples]"
    chosen = [*SMALL, GMM, "evaluation.iwae.num_samples=0", figures, "figures.projector=0", "figures.gif=true"]
    evaluate_runs(compose([f"run={run}", *chosen, off], "evaluate"))
    assert fits == []
    assert not (run / "figures" / "samples_gmm.png").exists()


def test_every_sampler_can_be_added_to_a_complete_run(run):
    pytest.importorskip("zuko")
    short = ["evaluation.flow.epochs=1", "evaluation.two_stage.epochs=1", "evaluation.flow.transforms=1"]
    names = [f"samples_{name}" for name in SAMPLERS[1:]] + [f"class_samples_{name}" for name in SAMPLERS[1:]]
    asked = [
        f"evaluation.samplers=[{','.join(SAMPLERS)}]",
        f"figures.only=[{','.join(names)}]",
        "figures.gif=true",
    ]
    results = evaluate(run, *asked, *short)
    expected = {f"{name}.png" for name in names} | {f"samples_{name}.gif" for name in SAMPLERS[1:]}
    assert set(read_record(run / "figures" / "index.json")["files"]) == expected
    assert set(results["samplers"]) == {"gmm", "flow"}  # without FID and accuracy, those with a bound
    assert {path.name for path in (run / "samplers").iterdir()} == {
        f"{name}.safetensors" for name in ("gmm", "flow", "two_stage")
    }


def test_what_a_sampler_is_called_in_titles(run):
    loaded = load_run(run, device="cpu")
    store, settings = loaded.parts.evaluator.context.samplers, loaded.config["evaluation"]
    gmm = [in_words(store.get("gmm", {"num_components": num})) for num in (1, 3)]
    assert gmm == [
        "a Gaussian fitted to q(z) of each class",
        "a mixture of 3 Gaussians fitted to q(z) of each class",
    ]
    model, data = loaded.parts.model, loaded.parts.data
    others = {
        name: in_words(make_sampler(name, settings.get(name, {}), model, data))
        for name in SAMPLERS
        if name != "gmm"
    }
    assert others["prior"] == "the prior"
    assert len(set(others.values())) == len(others)
    assert all("q(z) of each class" in told for name, told in others.items() if name != "prior")


# --- LoadedRun.sample ---------------------------------------------------------------------------------------


def by_hand(loaded: LoadedRun, name: str, num: int, labels: Tensor | None, seed: int) -> Tensor:
    """Images (num, C, H, W) as the sampler and the model say, with the stream that measures draw from."""
    context = loaded.parts.evaluator.context
    generator = rng.stream(seed, "sampling")
    fit = {"num_components": 3} if name == "gmm" else {}
    z = context.samplers.get(name, fit).sample(num, labels, generator).float()
    with torch.no_grad():
        return loaded.parts.model.decode(z, labels).sigmoid()


@pytest.mark.parametrize("kind", ["conditional", "base"])
@pytest.mark.parametrize("sampler", ["prior", "gmm", "aggregate"])
def test_images_are_decoded_draws_of_the_sampler(kind, sampler, worlds, fits):
    loaded = load_run(worlds[kind], device="cpu")
    labels = torch.arange(12) % 10 if kind == "conditional" else None
    images = loaded.sample(12, sampler, labels)
    assert images.shape == (12, 1, 28, 28)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images, by_hand(loaded, sampler, 12, labels, 0))
    assert torch.equal(images, loaded.sample(12, sampler, labels, seed=0))  # the run's seed
    other = loaded.sample(12, sampler, labels, seed=1)
    assert torch.equal(other, by_hand(loaded, sampler, 12, labels, 1))
    assert not torch.equal(other, images)
    if labels is not None:
        assert not torch.equal(loaded.sample(12, sampler, (labels + 1) % 10), images)
    assert fits == []  # the run has its fit
    assert not images.is_inference()
    images.requires_grad_()


def test_images_are_those_of_measures_and_figures(worlds):
    loaded = load_run(worlds["conditional"], device="cpu")
    context = loaded.parts.evaluator.context
    gmm, test = context.samplers.get("gmm", {"num_components": 3}), loaded.parts.data.test
    features = {
        name: context.generated_features(Pixels(), test.labels, "", sampler=own).features
        for name, own in (("prior", None), ("gmm", gmm))
    }
    for name, found in features.items():
        images = loaded.sample(len(test), name, test.labels)
        np.testing.assert_array_equal(images.flatten(1).double().numpy(), found)
    assert not np.array_equal(features["prior"], features["gmm"])
    rows = torch.arange(10).repeat_interleave(2)  # as figures.num_samples=20
    from fmvae.visualization import Source

    figure = loaded.parts.visualizer.generate_samples(20, Source("gmm", gmm.sample))
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(shown[:28, 29:57], loaded.sample(20, "gmm", rows)[1, 0].numpy())


def test_one_label_is_the_class_of_all(worlds):
    loaded = load_run(worlds["conditional"], device="cpu")
    expected = loaded.sample(4, "gmm", torch.full((4,), 7))
    for same in (7, [7, 7, 7, 7], np.full(4, 7)):
        assert torch.equal(loaded.sample(4, "gmm", same), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), ["num is 0", "1 or more"]),
        ((2.0,), ["num is 2.0"]),
        ((True,), ["num is True"]),
        ((4, "gnn", 1), ["'gnn'", "prior, gmm, flow"]),
        ((4, "gmm"), ["no labels", "give one in [0, 10), or 4 of them"]),
        ((4, "prior"), ["no labels"]),
        ((4, "gmm", 10), ["label 10"]),
        ((4, "gmm", [0, 1, 2, -1]), ["label -1"]),
        ((4, "gmm", [0, 1]), ["shape (2,) for 4 images"]),
        ((4, "gmm", 1.5), ["float32"]),
        ((4, "gmm", "Coat"), ["'Coat'"]),
    ],
    ids=str,
)
def test_a_bad_argument_is_one_clear_error(arguments, words, worlds):
    loaded = load_run(worlds["conditional"], device="cpu")
    with pytest.raises(ConfigError) as caught:
        loaded.sample(*arguments)
    assert caught.value.subject == "sample"
    assert not [word for word in words if word not in str(caught.value)], caught.value


def test_labels_for_a_model_that_takes_none_are_refused(worlds):
    loaded = load_run(worlds["base"], device="cpu")
    with pytest.raises(ConfigError, match=r"labels are given, but base takes none; leave them out"):
        loaded.sample(2, "gmm", [1, 2])


def test_the_settings_are_those_that_the_run_was_measured_with(run, fits):
    evaluate(run, "evaluation.gmm.num_components=2")
    assert fits == [2]
    first = load_run(run, device="cpu").sample(3, "gmm", 0)
    assert fits == [2]  # not the usual ones, [1, 10, 100]
    # negative control: without results of gmm, the usual ones
    loaded = load_run(run, device="cpu")
    del loaded.results["samplers"]
    assert not torch.equal(loaded.sample(3, "gmm", 0), first)
    assert fits == [2, [1, 10, 100]]


def test_a_new_fit_is_written_under_the_lock_or_not_at_all(run, fits, monkeypatch, caplog):
    (run / FITTED).unlink()
    loaded = load_run(run, device="cpu")
    (other,) = find_runs(run)
    caplog.set_level("INFO", logger="fmvae")
    with other.held():
        first = loaded.sample(3, "gmm", 0)
        assert not (run / "samplers").exists() or not list((run / "samplers").iterdir())
        assert "is held by process" in caplog.text
        assert torch.equal(loaded.sample(3, "gmm", 0), first)
    assert fits == [3]  # from memory the second time

    def refused(self):
        raise OSError(failure, "refused", str(run))

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "held", refused)
        failure = errno.EROFS
        assert torch.equal(load_run(run, device="cpu").sample(3, "gmm", 0), first)
        failure = errno.ENOSPC
        with pytest.raises(OSError, match="refused"):
            load_run(run, device="cpu").sample(3, "gmm", 0)
    assert not list((run / "samplers").glob("*"))

    held = []

    def seen(self, *arguments, fit=GaussianMixtureSampler.fit, **options):
        held.append(other.is_held())
        fit(self, *arguments, **options)

    monkeypatch.setattr(GaussianMixtureSampler, "fit", seen)
    assert torch.equal(load_run(run, device="cpu").sample(3, "gmm", 0), first)
    assert held == [True]
    assert not other.is_held()
    assert (run / FITTED).exists()
    with other.held():  # what is there is read without the lock
        assert torch.equal(load_run(run, device="cpu").sample(3, "gmm", 0), first)
    assert held == [True]


# --- verify -------------------------------------------------------------------------------------------------


def test_verify_lists_the_files_of_samplers_and_computes_their_numbers_again(run, fits):
    (directory,) = find_runs(run)
    found = verify(directory, device="cpu")
    assert found.problems == []
    assert FITTED in found.files
    assert "samplers/gmm/bound" in found.measures
    evaluate(run, *JUDGED)
    fits.clear()
    found = verify(directory, device="cpu")
    assert found.problems == []
    assert {"samplers/gmm/bound", "samplers/gmm/accuracy"} <= set(found.measures)
    assert fits == [3]  # once for both measures


JUDGED = [f"evaluation.accuracy.weights={SHIPPED['blurred']}", "evaluation.accuracy.num_per_class=2"]


def test_verify_tells_of_files_of_samplers_that_are_damaged_or_of_another_checkpoint(run, worlds):
    (directory,) = find_runs(run)
    whole = (run / FITTED).read_bytes()
    cases = {
        "not a readable checkpoint": b"x",
        "not fitted to the best checkpoint that is there": (worlds["base"] / FITTED).read_bytes(),
        "not the file of a sampler": directory.best.read_bytes(),
    }
    for said, content in cases.items():
        (run / FITTED).write_bytes(content)
        (problem,) = verify(directory, recompute=False).problems
        assert problem.startswith(f"{FITTED}: {said}")
        assert problem.endswith("evaluate.py fits it anew when a measure or figure needs it")
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    (run / FITTED).write_bytes(flipped)
    (problem,) = verify(directory, recompute=False).problems
    assert problem.startswith(f"{FITTED}: ")
    (run / FITTED).write_bytes(whole)
    (run / "samplers" / "last").mkdir()
    (run / "samplers" / "last" / "gmm.safetensors").write_bytes(b"")
    (run / "samplers" / "flow.partial.safetensors").write_bytes(b"")
    problems = verify(directory, recompute=False).problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "samplers/flow.partial.safetensors",
        "samplers/last/gmm.safetensors",
    ]


# --- the terminal -------------------------------------------------------------------------------------------


def test_the_summary_has_a_row_for_each_sampler_and_its_bound_and_accuracy(run):
    results = json.loads(json.dumps(evaluate(run, *JUDGED)))

    def block(generation: float) -> dict[str, Any]:
        shares = {"precision": 0.9, "recall": 0.65, "coverage": 0.4, "nearest_ratio": 1.014}
        return {"generation": generation, "generation_se": 0.031, **shares, "settings": {}}

    for sampler, generation, chosen in (("prior", 2.947, {}), ("gmm", 0.893, {"num_components": 3})):
        results["samplers"][sampler]["resnet18"] = block(generation) | {"fitted": chosen}
    lines = describe(find_runs(run)[0], results).splitlines()
    rest = ["±", "0.031", "0.900", "0.650", "0.400", "1.014"]
    (start,) = (index for index, line in enumerate(lines) if line.startswith("  samples drawn from"))
    assert lines[start + 1].split() == ["resnet18:", "prior", "2.947", *rest]
    assert lines[start + 2].split() == ["resnet18:", "gmm,", "3", "0.893", *rest]
    assert len({len(line) for line in lines[start : start + 3]}) == 1  # aligned
    bound = results["samplers"]["gmm"]["bound"]["iwae_2"]
    found = results["samplers"]["gmm"]["bound"]["fitted"]
    density = f"gmm, {found['num_components']}" + (
        f", T = {found['temperature']:g}" if "temperature" in found else ""
    )
    assert (
        f"  IWAE 2 of another model, with ({density}) as its prior: {bound:.2f} nats per image  (20 images)"
        in lines
    )
    results["samplers"]["gmm"]["bound"]["fitted"]["temperature"] = 0.8
    assert "with (gmm, 3, T = 0.8) as its prior" in describe(find_runs(run)[0], results)
    shares = [results["samplers"][name]["accuracy"]["generated"]["overall"] for name in ("prior", "gmm")]
    told = f"prior {100 * shares[0]:.2f} %, gmm {100 * shares[1]:.2f} %"
    assert f"  images of the requested class, by sampler: {told}" in lines
    del results["samplers"]
    assert "sampler" not in describe(find_runs(run)[0], results)
