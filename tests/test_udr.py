"""``python -m fmvae.udr``: scores of runs that differ in their seeds, kept and drawn in the report."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from fmvae import rng, udr
from fmvae.config import compose
from fmvae.evaluation import disentanglement
from fmvae.experiments import train
from fmvae.measurement.load import load_run
from fmvae.report.collect import collect
from fmvae.report.matching import compared, informative, matches, pairing_chart, udr_chart
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
    assert "1 settings with fewer than 3 complete runs are left out" in said
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
