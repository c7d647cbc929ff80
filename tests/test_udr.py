"""``python -m fmvae.udr``: scores of runs that differ in their seeds, kept and drawn in the report."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from fmvae import rng, udr
from fmvae.config import compose
from fmvae.errors import RunError
from fmvae.evaluation import disentanglement
from fmvae.experiments import train
from fmvae.measurement.load import load_run
from fmvae.report.collect import collect
from fmvae.report.matching import compared, informative, matches, pairing_chart, udr_chart, uncompared
from fmvae.report.settings import settings_of
from fmvae.report.sweep import write_report
from fmvae.runs.files import read_record
from tests.idx import write_idx_dataset


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Three seeds of one setting, and one of another."""
    root = tmp_path_factory.mktemp("seeds")
    sha256 = write_idx_dataset(root / "data", 300, 200)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={root}/data", f"data.sha256={{{digests}}}", "data.download=false", "data.val_size=50"]
    small = ["model.hidden_dim=8", "trainer.epochs=1", "device=cpu", "evaluation=fast", "figures=none"]
    for words in (["seed=0"], ["seed=1"], ["seed=2"], ["seed=0", "beta.value=2"]):
        train(compose([*data, *small, "latent_dim.value=3", *words, f"output_root={root}", "sweep_name=s"]))
    return root / "s"


def test_scores_are_those_of_the_functions_and_are_kept(sweep, monkeypatch, capsys):
    assert udr.main([str(sweep), "--num-images", "150", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "1 setting with fewer than 3 complete runs are left out" in said
    assert f"python -m fmvae.report {sweep} shows them" in said
    (entry,) = read_record(sweep / "udr.json")["settings"]
    (setting,) = [one for one in settings_of(collect([sweep])) if len(one.runs) == 3]
    runs = [load_run(run.directory.path, device="cpu") for run in setting.runs]
    images = runs[0].parts.data.test.images[torch.randperm(200, generator=rng.stream(0, "evaluation"))[:150]]
    with torch.no_grad():
        posteriors = [run.parts.model.encode(images / 255) for run in runs]
    kl = [(0.5 * (mu**2 + logvar.exp() - 1 - logvar)).mean(0).numpy() for mu, logvar in posteriors]
    assert [(one > 0.01).tolist() for one in kl] == entry["informative"]
    expected = disentanglement.udr([mu for mu, _ in posteriors], [one > 0.01 for one in kl])
    assert np.allclose(list(entry["scores"].values()), expected.scores, atol=1e-4)
    level = disentanglement.rotated_level([int((one > 0.01).sum()) for one in kl]).mean()
    counts = sorted({int((one > 0.01).sum()) for one in kl})
    told = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    assert f"UDR {expected.scores.mean():.3f} (lowest and highest run: {expected.scores.min():.3f}" in said
    assert f"; rotated latents {level:.3f}, {told} informative dimension" in said
    assert np.allclose(entry["similarity"], expected.similarity[0, 1], atol=1e-4)
    before = (sweep / "udr.json").read_bytes()
    monkeypatch.setattr(udr, "_compare", None)  # calling it would raise
    assert udr.main([str(sweep), "--num-images", "150"]) == 0
    assert (sweep / "udr.json").read_bytes() == before
    with pytest.raises(TypeError):  # negative control: another number of images is computed
        list(udr.compare_seeds(sweep, 100, "cpu"))


def test_the_report_shows_them_while_the_runs_are_the_same(sweep, tmp_path):
    (sweep / "udr.json").unlink(missing_ok=True)
    before = write_report([sweep], tmp_path / "before").read_text()
    assert "compare the latents of seeds (UDR, 1 setting)" in before
    assert f"python -m fmvae.udr {sweep}" in before
    list(udr.compare_seeds(sweep, 150, "cpu"))
    settings = settings_of(collect([sweep]))
    ((setting, entry),) = matches(settings)
    chart, pairs = udr_chart(settings), pairing_chart(settings)
    assert chart
    assert pairs
    drawn = chart.axes[0].lines[0].get_xdata()
    assert sorted(np.ravel(drawn)) == pytest.approx(sorted(entry["scores"].values()))
    (level,) = {*np.ravel(chart.axes[0].lines[2].get_xdata())}
    assert level == pytest.approx(np.mean(disentanglement.rotated_level(informative(entry))))
    assert "dotted: the mean of latents rotated" in chart.get_supxlabel().replace("\n", " ")
    image = np.array(pairs.axes[0].images[0].get_array())
    assert sorted(image.ravel()) == pytest.approx(sorted(np.ravel(entry["similarity"])))
    assert image.diagonal().sum() == pytest.approx(
        max(sum(np.array(entry["similarity"])[range(3), order]) for order in ORDERS)
    )
    page = write_report([sweep], tmp_path / "report")
    assert "fmvae.udr" not in page.read_text()
    assert {"udr.png", "latent_pairs.png"} <= {path.name for path in page.parent.iterdir()}
    # negative controls: runs that were not compared, and a damaged file
    assert matches([type(setting)(setting.runs[:2])]) == []
    content = (sweep / "udr.json").read_text()
    (sweep / "udr.json").write_text(content.replace('"scores"', '"score"'))
    assert compared(sweep) == []
    assert udr_chart(settings) is None
    write_report([sweep], tmp_path / "report")
    assert not (page.parent / "udr.png").exists()
    (sweep / "udr.json").write_text(content)


def test_runs_that_were_trained_anew_are_not_shown_with_their_old_scores(sweep, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(sweep, folder)
    list(udr.compare_seeds(folder, 150, "cpu"))
    assert len(matches(settings_of(collect([folder])))) == 1
    written = json.loads((folder / "udr.json").read_bytes())
    checkpoints = written["settings"][0]["key"]["checkpoints"]
    checkpoints[max(checkpoints)] = "0" * 64  # as after restart=true of the run
    (folder / "udr.json").write_text(json.dumps(written))
    settings = settings_of(collect([folder]))
    assert matches(settings) == []
    assert len(uncompared(settings)) == 1
    assert "compare the latents of seeds (UDR, 1 setting)" in write_report([folder], tmp_path / "r").read_text()


@pytest.fixture
def in_ones(monkeypatch):
    """One run is a setting to compare, and its scores are made up: the sweep has two settings."""
    module = import_module("fmvae.evaluation.disentanglement.udr")
    monkeypatch.setattr(module, "FEWEST", 1)
    monkeypatch.setattr(module, "rotated_level", lambda counts: np.ones(len(counts)))

    def compare(setting, num_images, device, allow):
        scores = {run.name: 0.5 for run in setting.runs}
        return {"scores": scores, "informative": [[True]] * len(scores), "num_images": num_images}

    monkeypatch.setattr(udr, "_compare", compare)
    return compare


def test_a_run_that_cannot_be_used_stops_no_other_setting(sweep, tmp_path, capsys, monkeypatch, in_ones):
    folder = tmp_path / "s"
    shutil.copytree(sweep, folder, ignore=shutil.ignore_patterns("udr.json"))
    assert udr.main([str(folder), "--num-images", "150"]) == 0
    assert capsys.readouterr().err == ""

    def compare(setting, *others):
        if setting.first.beta == 1:
            raise RunError(setting.first.directory.path, "damaged", "restart it")
        return in_ones(setting, *others)

    monkeypatch.setattr(udr, "_compare", compare)
    assert udr.main([str(folder), "--num-images", "120"]) == 1
    told = capsys.readouterr()
    (run,) = folder.glob("base-b1-*-s0-*")
    assert f"β = 1: not compared: {run}: damaged; restart it" in told.out
    assert "1 setting could not be compared (β = 1); mend" in told.err
    # what was known of it is kept, and the other one is measured
    assert {len(entry["scores"]): entry["num_images"] for entry in compared(folder)} == {3: 150, 1: 120}


def test_a_run_whose_latents_are_not_finite_is_named(sweep, monkeypatch):
    models = import_module("fmvae.models")
    encode = models.encode_split
    (setting,) = [one for one in settings_of(collect([sweep])) if len(one.runs) == 3]
    assert udr._compare(setting, 100, "cpu", [])["num_images"] == 100

    def broken(model, images):
        found = encode(model, images)
        return found._replace(mu=found.mu * float("nan"))

    monkeypatch.setattr(models, "encode_split", broken)
    with pytest.raises(RunError, match=f"{setting.first.name}: its encoder's latents are not finite; train it"):
        udr._compare(setting, 100, "cpu", [])


def test_scores_of_a_setting_with_an_unreadable_run_are_kept_and_those_of_a_lost_run_are_not(
    sweep, tmp_path, in_ones
):
    folder = tmp_path / "s"
    shutil.copytree(sweep, folder, ignore=shutil.ignore_patterns("udr.json"))
    list(udr.compare_seeds(folder, 150))
    (results,) = folder.glob("base-b1-*-s1-*/results.json")
    results.write_bytes(results.read_bytes()[:300])
    list(udr.compare_seeds(folder, 150))
    assert sorted(len(entry["scores"]) for entry in compared(folder)) == [1, 2, 3]
    shutil.rmtree(results.parent)
    list(udr.compare_seeds(folder, 150))
    assert sorted(len(entry["scores"]) for entry in compared(folder)) == [1, 2]


def test_an_interrupted_comparison_keeps_what_was_compared_before(sweep, tmp_path, monkeypatch):
    folder = tmp_path / "s"
    folder.symlink_to(sweep)
    module = import_module("fmvae.evaluation.disentanglement.udr")
    monkeypatch.setattr(module, "FEWEST", 1)  # so that there are two settings
    monkeypatch.setattr(module, "rotated_level", lambda counts: np.ones(len(counts)))  # has none for one run
    compared_now = []

    def compare(setting, num_images, device, allow):
        if num_images == 100 and compared_now:
            raise KeyboardInterrupt
        compared_now.append(num_images)
        scores = {run.name: 0.5 for run in setting.runs}
        return {"scores": scores, "informative": [[True]] * len(scores), "num_images": num_images}

    monkeypatch.setattr(udr, "_compare", compare)
    (sweep / "udr.json").unlink(missing_ok=True)
    list(udr.compare_seeds(folder, 150))
    assert compared_now == [150, 150]
    compared_now.clear()
    with pytest.raises(KeyboardInterrupt):
        list(udr.compare_seeds(folder, 100))
    assert [entry["num_images"] for entry in compared(sweep)] == [100, 150]
    monkeypatch.setattr(module, "FEWEST", 2)
    list(udr.compare_seeds(folder, 100))
    assert [entry["num_images"] for entry in compared(sweep)] == [100]  # a setting that lost its seeds is gone
    (sweep / "udr.json").unlink()


ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def test_what_cannot_be_compared_ends_in_one_line(sweep, tmp_path, capsys):
    assert udr.main([str(sweep), "--num-images", "1"]) == 1
    assert udr.main([str(tmp_path / "nothing")]) == 1
    alone = tmp_path / "alone"
    alone.mkdir()
    (run,) = [path for path in sweep.iterdir() if path.name.startswith("base-b2-")]
    (alone / run.name).symlink_to(run)
    assert udr.main([str(alone)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert (
        "no setting has 3 complete runs that differ only in their seeds (at most 1; 1 complete); train more seeds"
        in lines[-1]
    )
