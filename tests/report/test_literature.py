"""The section of docs/results.md on likelihoods of papers: theirs beside ours, of the runs that are there."""

from pathlib import Path

import pytest

from fmvae.errors import FmvaeError
from fmvae.report.reference import write_page
from fmvae.runs.files import read_record, write_record
from tests.report.test_reference import cells, quick, write_run  # noqa: F401  (a fixture)

HEADING = "Likelihoods that compare with papers"


def write(folder: Path, experiment: str, number: float, draws: int = 5000) -> Path:
    run = write_run(folder, [f"experiment={experiment}"], number)
    results = read_record(run / "results.json")
    del results["fid"]
    settings = {"num_samples": draws, "num_images": 10_000}
    results["iwae"] = {f"iwae_{draws}": number - 7, "num_images": 10_000, "settings": settings}
    write_record(run / "results.json", results)
    return run


def page_of(tmp_path: Path) -> str:
    return write_page(tmp_path / "runs", tmp_path / "docs", "the command").read_text(encoding="utf-8")


@pytest.fixture
def baseline(tmp_path) -> Path:
    return write_run(tmp_path / "runs", ["experiment=baseline"], 261.0)


@pytest.mark.usefixtures("baseline")
def test_theirs_and_ours_stand_side_by_side(tmp_path):
    assert HEADING not in page_of(tmp_path)  # without its runs
    run = write(tmp_path / "runs", "nll_mlp", 236.0)
    page = page_of(tmp_path)
    row = cells(page, HEADING, "nll_mlp")
    assert row[:4] == [f"[nll_mlp](results/{run.name}/results.json)", "gated", "N(0, 1)", "1"]
    assert row[4:7] == ["228.70 ± 0.15", "229.00", "239.00"]
    other = cells(page, HEADING, "nll_mlp_vamp")
    assert other[1:] == ["", "", "", "227.35 ± 0.05", "", "", "", ""]
    missing = [line for line in page.splitlines() if line.startswith("Not run yet: ")]
    assert any("nll_mlp_vamp (`python train.py experiment=nll_mlp_vamp`)" in line for line in missing)
    assert "importance-weighted bounds of 5,000 draws, on 10,000 test images" in page.replace("\n", " ")
    assert "nll_mlp" not in page.partition("## Likelihood\n")[2].partition("\n## ")[0]  # another scale
    assert (tmp_path / "docs" / "results" / run.name / "results.json").exists()


@pytest.mark.usefixtures("baseline")
def test_a_bound_of_other_draws_is_not_shown_beside_theirs(tmp_path):
    write(tmp_path / "runs", "nll_mlp", 236.0, draws=64)
    assert cells(page_of(tmp_path), HEADING, "nll_mlp")[5] == ""
    write(tmp_path / "runs", "nll_mlp_vamp", 235.0)
    with pytest.raises(FmvaeError, match="iwae was measured with"):
        page_of(tmp_path)


@pytest.mark.usefixtures("baseline")
def test_each_row_carries_its_source(tmp_path, monkeypatch):
    import yaml

    from fmvae.report import reference

    write(tmp_path / "runs", "nll_mlp", 236.0)
    said = page_of(tmp_path).replace("\n", " ")
    papers = "from Norouzi et al. 2020 (*Exemplar VAE*) for `nll_mlp` and `nll_mlp_vamp`, ± as printed"
    assert f"theirs are {papers}" in said
    published = yaml.safe_load(reference.PUBLISHED.read_text(encoding="utf-8"))
    monkeypatch.setattr(reference, "PUBLISHED", tmp_path / "published.yaml")
    published["nll_mlp_vamp"]["source"] = "Another Paper 2021"
    reference.PUBLISHED.write_text(yaml.safe_dump(published, sort_keys=False), encoding="utf-8")
    said = page_of(tmp_path).replace("\n", " ")
    assert "Norouzi et al. 2020 (*Exemplar VAE*) for `nll_mlp`; Another Paper 2021 for `nll_mlp_vamp`, ±" in said
    del published["nll_mlp"]["source"]
    reference.PUBLISHED.write_text(yaml.safe_dump(published, sort_keys=False), encoding="utf-8")
    with pytest.raises(FmvaeError, match="nll_mlp has a bound without its source; add source"):
        page_of(tmp_path)


@pytest.mark.usefixtures("baseline")
def test_our_own_schedule_has_no_published_number(tmp_path):
    write(tmp_path / "runs", "nll_mlp", 236.0)
    write(tmp_path / "runs", "nll_mlp_short", 235.0)
    page = page_of(tmp_path)
    assert cells(page, HEADING, "nll_mlp_short")[4:7] == ["", "228.00", "238.00"]
    assert "`nll_mlp_short`" not in page.partition(HEADING)[2].partition("| experiment")[0]
