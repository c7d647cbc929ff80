"""The page of reference results says what the run directories hold, and nothing else."""

import copy
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fmvae.config import compose
from fmvae.config.composing import sweep_jobs
from fmvae.config.identity import RunIdentity
from fmvae.config.stored import to_yaml
from fmvae.errors import FmvaeError, RunError
from fmvae.report import generators, keeping, reference, study
from fmvae.report.__main__ import main
from fmvae.report.reference import PUBLISHED, find, write_page
from fmvae.report.reference_tables import CLASSIFIER
from fmvae.report.topics import FAMILY, TOPICS
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import read_record, write_record

# of sweep=family: two objectives of the one model, and one of the other
JOBS = [job for job in sweep_jobs("family") if {"loss=elbo", "loss=factor_vae"} & set(job)]
JOBS = [job for job in JOBS if {"model=beta", "loss=elbo"} & set(job)]
DRAWN = FAMILY.drawn
# who shows words written by hand, as what, and the file that holds them
SHOWN = [(topic, "finding") for topic in TOPICS] + [(module, "FINDING") for module in (generators, reference)]
FINDINGS = [getattr(*shown) for shown in SHOWN]


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(keeping, "compose", composed)
    monkeypatch.setattr(study, "sweep_jobs", lambda name: JOBS if name == "family" else [])
    monkeypatch.setattr(FAMILY, "drawn", ())
    set_findings(monkeypatch, [tmp_path / "findings" / file.name for file in FINDINGS])
    (tmp_path / "findings").mkdir()


def set_findings(monkeypatch, files: Sequence[Path]) -> None:
    """Take the words of the page from other files, in the order of FINDINGS."""
    for shown, file in zip(SHOWN, files, strict=True):
        monkeypatch.setattr(*shown, file)


@functools.cache
def _composed(*overrides: str) -> dict[str, Any]:
    return compose(overrides)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """A page asks for some 45 configs, always the same."""
    return copy.deepcopy(_composed(*overrides))


def fid(value: float) -> dict[str, Any]:
    names = ("generation_se", "reconstruction", "floor", "kid", "precision", "recall", "density", "coverage")
    block = {"generation": value} | {name: value + i / 1000 for i, name in enumerate(names, 1)}
    return block | {"num_images": 10_000, "settings": {"extractor_sha256": "e" * 64}}


def results_of(config: dict[str, Any], number: float) -> dict[str, Any]:
    terms = ("objective", "recon", "kl", "neg_elbo", "recon_at_mean", "objective_at_mean")
    git = {"commit": "c" * 40, "dirty": False}
    return {
        "run": RunIdentity.of(config).name,
        "config_sha256": RunIdentity.of(config).sha256,
        "checkpoint": {"which": "best", "epoch": 3, "sha256": "d" * 64},
        "test": {name: number + i for i, name in enumerate(terms)} | {"settings": {}, "num_images": 10_000},
        "fid": {"resnet18": fid(number / 100), "pixels": fid(number / 10)},
        "provenance": {"training": {"git": git}, "data_sha256": {"t10k-images-idx3-ubyte": "a" * 64}},
    }


def write_run(folder: Path, overrides: list[str], number: float) -> Path:
    """A run directory with results whose values all tell where they are from."""
    config = composed(overrides)
    run = folder / RunIdentity.of(config).name
    (run / "figures").mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config))
    for name in ("samples", "traversal_prior"):
        (run / "figures" / f"{name}.png").write_bytes(b"\x89PNG")
    write_record(run / "results.json", results_of(config, number))
    RunDirectory(run).write_status("complete")
    return run


def cells(page: str, section: str, title: str, table: int = 0) -> list[str]:
    """The cells of a row of a table under a heading."""
    lines = page.partition(f"## {section}")[2].partition("\n## ")[0].splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("| ---")] + [len(lines)]
    own = lines[starts[table] : starts[table + 1]]
    (line,) = [line for line in own if line.startswith((f"| [{title}]", f"| {title} |"))]
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def origin(folder: Path, title: str) -> list[str]:
    """The cells of a row of the page on where the rows come from."""
    text = (folder / "docs" / "results" / "provenance.md").read_text(encoding="utf-8")
    return cells(f"#{text}", "Where each row of the results comes from", title)


def judged_block(overall: float) -> dict[str, Any]:
    """An accuracy block; each class has its own share."""
    shares = {name: overall - i / 100 for i, name in enumerate(("T-shirt/top", "Coat"))}
    made = {"overall": overall, "per_class": shares, "num_images": 5_000}
    real = {"overall": 0.95, "per_class": dict.fromkeys(shares, 0.96), "num_images": 10_000}
    return {"generated": made, "real": real, "settings": {"num_per_class": 500, "extractor_sha256": "f" * 64}}


def write_conditional(folder: Path, seed: int, number: float, accuracy: float | None) -> Path:
    run = write_run(folder, ["experiment=conditional_z32", f"seed={seed}"], number)
    results = read_record(run / "results.json")
    if accuracy is not None:
        results["accuracy"] = judged_block(accuracy)
        results["fid"]["resnet18"]["as_asked"] = accuracy - 0.1
    else:
        del results["fid"]
    write_record(run / "results.json", results)
    return run


@pytest.fixture
def page(tmp_path) -> str:
    write_run(tmp_path / "outputs", ["experiment=baseline"], 261.0)
    for seed, number in enumerate((241.0, 242.0, 244.5)):
        write_run(tmp_path / "outputs" / "sweep", ["experiment=wide_latent", f"seed={seed}"], number)
    write_run(tmp_path / "outputs", sweep_jobs("traversal_study")[0], 300.0)
    return write_page(tmp_path / "outputs", tmp_path / "docs", "the command").read_text()


def test_a_row_holds_theirs_beside_ours(page):
    theirs = yaml.safe_load(PUBLISHED.read_text())["baseline"]
    assert cells(page, "Likelihood", "baseline")[1:] == ["base", "2", "1", "1", "264.00", "262.00", "263.00", ""]
    row = cells(page, "Likelihood", "baseline", table=1)
    assert row[1:4] == [f"{theirs['objective']:.2f}", "261.00", "266.00"]
    assert row[4:] == [f"{theirs['recon']:.2f}", "262.00", "265.00", f"{theirs['kl']:.2f}", "263.00"]
    distances = cells(page, "Fréchet distances", "baseline")
    assert distances[1:5] == [f"{theirs['fid']:.2f}", "2.610 ± 2.611", "2.612", "2.613"]
    assert distances[5:] == ["26.10 ± 26.10", "26.10", "26.10"]
    companions = cells(page, "Fréchet distances", "baseline", table=1)
    assert companions[1:] == ["2614.000", "2.615", "2.616", "2.617", "2.618"]


def test_a_run_within_a_sweep_and_a_row_of_the_traversal_study_are_found(page):
    assert cells(page, "Likelihood", "wide_latent")[4] == "3"
    assert cells(page, "Likelihood", "conv, z = 10, β = 0.5, 20 epochs")[1:4] == ["conv", "10", "0.5"]


def test_a_row_without_a_run_says_how_to_make_it(page):
    section = page.partition("## Likelihood\n")[2].partition("\n## ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith("Not run yet")]
    assert "low_beta" in line
    assert "`python train.py experiment=low_beta seed=0`" in line
    assert not any(line.startswith("| low_beta |") for line in section.splitlines())
    assert "wide_latent" not in line  # the control: it has runs


def test_seeds_are_one_row_with_their_mean_and_sample_standard_deviation(page, tmp_path):
    mean, sd = np.mean([241, 242, 244.5]), np.std([241, 242, 244.5], ddof=1)
    row = cells(page, "Likelihood", "wide_latent")
    assert row[4:6] == ["3", f"{mean + 3:.2f} ± {sd:.2f}"]
    assert cells(page, "Likelihood", "wide_latent", table=1)[2] == f"{mean:.2f} ± {sd:.2f}"
    distances = cells(page, "Fréchet distances", "wide_latent")
    assert distances[2] == f"{mean / 100:.3f} ± {sd / 100:.3f}"
    assert distances[-3] == f"{mean / 10:.2f} ± {sd / 10:.2f}"
    for seed in range(3):  # each with its own config and hashes
        title = f"wide_latent: `python train.py experiment=wide_latent seed={seed}`"
        assert origin(tmp_path, title)[2] == "3 of 30"


def test_accuracies_are_over_the_seeds_that_have_one_and_say_how_many(tmp_path):
    """The first seed was trained with evaluation=fast."""
    for seed, accuracy in enumerate((None, 0.91, 0.94)):
        write_conditional(tmp_path / "outputs", seed, 230.0 + seed, accuracy)
    page = write_page(tmp_path / "outputs", tmp_path / "docs", "the command").read_text()
    row = cells(page, "Do generated images", "conditional_z32")
    sd = 100 * np.std([0.91, 0.94], ddof=1)
    assert row[1:3] == ["90.66%", f"92.50 ± {sd:.2f} % (n = 2)"]
    assert row[3:5] == ["Coat", f"91.5 ± {sd:.1f} % (n = 2)"]
    assert row[5] == f"82.50 ± {sd:.2f} % (n = 2)"
    assert cells(page, "Do generated images", CLASSIFIER)[2] == "95.00 %"
    classes = (tmp_path / "docs" / "results" / "classes.md").read_text(encoding="utf-8")
    each = cells(f"#{classes}", "Do generated images", "conditional_z32")
    assert each[1:] == [f"92.5 ± {sd:.1f} % (n = 2)", f"91.5 ± {sd:.1f} % (n = 2)"]
    assert cells(f"#{classes}", "Do generated images", CLASSIFIER)[1:] == ["96.0 %", "96.0 %"]
    title = "conditional_z32: `python train.py experiment=conditional_z32 seed=2`"
    assert origin(tmp_path, title)[-2:] == ["`eeeeeeeeee`", "`ffffffffff`"]


def test_a_run_without_distances_has_no_row_of_them(tmp_path):
    write_conditional(tmp_path, 0, 230.0, accuracy=None)
    write_run(tmp_path, ["experiment=baseline"], 261.0)
    page = write_page(tmp_path, tmp_path / "docs", "").read_text()
    assert cells(page, "Likelihood", "conditional_z32")[5] == "233.00"
    with pytest.raises(ValueError, match="not enough values"):
        cells(page, "Fréchet distances", "conditional_z32")
    assert cells(page, "Fréchet distances", "baseline")[2]


def test_numbers_of_two_extractors_share_no_table(tmp_path):
    write_run(tmp_path, ["experiment=baseline"], 261.0)
    other = write_run(tmp_path, ["experiment=baseline", "seed=1"], 262.0)
    write_page(tmp_path, tmp_path / "docs", "")
    results = read_record(other / "results.json")
    results["fid"]["resnet18"]["settings"]["extractor_sha256"] = "0" * 64
    write_record(other / "results.json", results)
    with pytest.raises(FmvaeError, match=r"fid/resnet18 was measured with .*0000.*python evaluate\.py run="):
        write_page(tmp_path, tmp_path / "docs", "")


def test_every_row_leads_to_its_config_commit_and_hashes(page, tmp_path):
    links = re.findall(r"\]\((results/[^)]+)\)|src=\"(results/[^\"]+)\"", page)
    files = [a or b for a, b in links]
    assert len(set(files)) >= 3 * 2  # results and picture of each
    assert all((tmp_path / "docs" / file).is_file() for file in files)
    row = origin(tmp_path, "baseline: `python train.py experiment=baseline seed=0`")
    assert (tmp_path / "docs" / "results" / row[1].partition("](")[2].rstrip(")")).is_file()
    assert row[3:] == ["`cccccccccc`", "`aaaaaaaaaa`", "`dddddddddd`", "`eeeeeeeeee`", ""]
    (one,) = find(tmp_path / "outputs", tmp_path, ["experiment=baseline"], "x").found
    run = one.run
    kept = yaml.safe_load((tmp_path / "docs" / "results" / run.path.name / "config.yaml").read_text())
    assert RunIdentity.of(kept).sha256 == one.results["config_sha256"]
    assert "output_root" not in kept  # nor any other path of one machine


def test_damaged_results_are_no_results(tmp_path):
    run = write_run(tmp_path, ["experiment=baseline"], 261.0)
    assert find(tmp_path, tmp_path / "docs", ["experiment=baseline"]).found
    content = (run / "results.json").read_text()
    (run / "results.json").write_text(content.replace("261.0", "161.0", 1))
    assert not find(tmp_path, tmp_path / "docs", ["experiment=baseline"]).found


def test_half_a_training_is_no_result_and_hides_no_whole_one(tmp_path):
    run = write_run(tmp_path, ["experiment=baseline"], 261.0)
    RunDirectory(run).write_status("interrupted")
    assert not find(tmp_path, tmp_path / "docs", ["experiment=baseline"]).found
    whole = write_run(tmp_path / "sweep", ["experiment=baseline"], 251.0)
    assert [one.run.path for one in find(tmp_path, tmp_path / "docs", ["experiment=baseline"]).found] == [whole]


def test_a_run_on_another_machine_stays_on_the_page(tmp_path):
    """What an earlier page kept of it is read again, when the run itself is not here."""
    here, docs = tmp_path / "here", tmp_path / "docs"
    write_run(tmp_path / "there", ["experiment=baseline", "seed=0"], 261.0)
    write_page(tmp_path / "there", docs, "")
    write_run(here, ["experiment=baseline", "seed=1"], 263.0)
    page = write_page(here, docs, "").read_text()
    assert cells(page, "Likelihood", "baseline")[4:6] == ["2", f"265.00 ± {2**0.5:.2f}"]
    assert page == write_page(here, docs, "").read_text()
    for seed in (0, 1):
        origin(tmp_path, f"baseline: `python train.py experiment=baseline seed={seed}`")
    assert page.count("samples.png") == 1  # the picture is kept too


def test_what_is_here_goes_before_what_was_kept(tmp_path):
    run = write_run(tmp_path / "runs", ["experiment=baseline"], 261.0)
    write_page(tmp_path / "runs", tmp_path / "docs", "")
    write_record(run / "results.json", results_of(compose(["experiment=baseline"]), 251.0))
    page = write_page(tmp_path / "runs", tmp_path / "docs", "").read_text()
    assert cells(page, "Likelihood", "baseline")[5] == "254.00"


def test_what_was_kept_is_refused_if_damaged(tmp_path):
    run = write_run(tmp_path / "there", ["experiment=baseline"], 261.0)
    write_page(tmp_path / "there", tmp_path / "docs", "")
    kept = tmp_path / "docs" / "results" / run.name / "results.json"
    kept.write_text(kept.read_text().replace("261.0", "161.0", 1))
    with pytest.raises(RunError, match="does not match its digest"):
        write_page(tmp_path / "here", tmp_path / "docs", "")


def test_a_folder_without_runs_is_an_error_in_one_line(tmp_path, capsys):
    with pytest.raises(FmvaeError, match="none of the reference runs"):
        write_page(tmp_path, tmp_path / "docs", "")
    assert main(["reference", str(tmp_path), "--to", str(tmp_path / "docs")]) == 1
    assert capsys.readouterr().err.startswith("fmvae: error: ")
    assert not (tmp_path / "docs").exists()
