"""The section on ``sweep=family`` of docs/results.md says what its runs hold, and nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fmvae.config.composing import sweep_jobs
from fmvae.config.project import PROJECT_ROOT
from fmvae.errors import FmvaeError
from fmvae.report import study
from fmvae.report.reference import write_page
from fmvae.report.topics import FAMILY
from fmvae.runs.files import read_record, write_record
from tests.report.test_reference import DRAWN, FINDINGS, JOBS, origin, quick, set_findings, write_run  # noqa: F401  (a fixture)

HEADING = "What each objective presses on"


def jobs(*words: str) -> list[list[str]]:
    return [job for job in JOBS if set(words) <= set(job)]


def write(folder: Path, job: list[str], number: float, *, draws: int = 2000, decomposed: bool = True) -> Path:
    """A run of the family; its parts of the KL are 10, 1 and 0.1 of the number."""
    run = write_run(folder / "family", job, number)
    results = read_record(run / "results.json")
    del results["fid"]
    if decomposed:
        parts = {"mi": number / 10, "tc": number / 100, "dimension_wise": number / 1000}
        results["decomposition"] = parts | {f"{name}_se": value / 50 for name, value in parts.items()}
        results["decomposition"] |= {"num_draws": draws, "num_images": 54_000, "settings": {"num_samples": draws}}
    write_record(run / "results.json", results)
    return run


def page_of(tmp_path: Path, folder: str = "runs") -> str:
    return write_page(tmp_path / folder, tmp_path / "docs", "the command").read_text(encoding="utf-8")


def rows(page: str, model: str) -> list[list[str]]:
    """The rows of a model's table, without the links; none if there is no such table."""
    table = page.partition(f"<summary>All numbers of model={model}</summary>\n")[2].partition("</details>")[0]
    lines = [line for line in table.splitlines() if line.startswith("| [")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [[row[0].partition("]")[0].lstrip("["), *row[1:]] for row in found]


@pytest.fixture
def part(tmp_path) -> Path:
    """Two seeds of the ELBO at one strength, and one seed of FactorVAE at another; and a run of the page's own."""
    for number, job in zip((240.0, 244.0), jobs("model=beta", "loss=elbo", "beta.value=4"), strict=True):
        write(tmp_path / "runs", job, number)
    write(tmp_path / "runs", jobs("loss=factor_vae", "loss.gamma=20", "seed=1")[0], 250.0)
    write_run(tmp_path / "runs", ["experiment=baseline"], 261.0)
    return tmp_path


def test_rows_hold_means_over_seeds_and_the_error_of_the_draws_of_one_seed(part):
    sd = np.std([240.0, 244.0], ddof=1)
    elbo, factor = rows(page_of(part), "beta")
    assert elbo == [
        "elbo",
        "β 4",
        "2",
        f"243.00 ± {sd:.2f}",
        f"244.00 ± {sd:.2f}",
        f"24.20 ± {sd / 10:.2f}",
        f"2.420 ± {sd / 100:.3f}",
        f"0.242 ± {sd / 1000:.3f}",
        f"245.00 ± {sd:.2f}",
    ]
    assert factor == [
        *("factor", "gamma 20", "1", "251.00", "252.00"),
        *("25.00 ± 0.50", "2.500 ± 0.050", "0.250 ± 0.005", "253.00"),
    ]


def test_what_is_not_there_is_left_out_and_the_page_says_how_much_is(part):
    page = page_of(part)
    assert len(JOBS) == 18
    assert "3 of its 18 runs are shown, of z = 10,\n10 epochs" in page
    assert "2,000 draws and all posteriors of 54,000 images" in page
    assert rows(page, "conv") == []
    assert "All numbers of model=conv" not in page
    write(part / "runs", jobs("model=conv", "seed=0", "beta.value=1")[0], 230.0)
    page = page_of(part)
    assert "4 of its 18 runs" in page
    assert [row[:3] for row in rows(page, "conv")] == [["elbo", "β 1", "1"]]
    assert len(rows(page, "beta")) == 2


def test_all_rows_stand_in_the_order_of_the_sweep(tmp_path):
    for job in reversed(JOBS):
        write(tmp_path / "runs", job, 240.0)
    page = page_of(tmp_path)
    assert [row[:3] for row in rows(page, "beta")] == [
        *(["elbo", f"β {beta}", "2"] for beta in (1, 4, 16)),
        *(["factor", f"gamma {gamma}", "2"] for gamma in (5, 20, 80)),
    ]
    assert len(rows(page, "conv")) == 3
    assert "18 of its 18 runs" in page


def test_negative_control_from_the_runs_that_are_there_alone_a_strength_is_not_known(part, monkeypatch):
    """One run of FactorVAE does not tell that its strength is gamma."""
    there = [*jobs("model=beta", "beta.value=4"), *jobs("loss.gamma=20", "seed=1")]
    monkeypatch.setattr(study, "sweep_jobs", lambda name: there if name == "family" else [])
    assert [row[1] for row in rows(page_of(part), "beta")] == ["β 4", "β 1"]


def test_a_page_without_such_runs_is_as_it_was(part, monkeypatch):
    shutil.rmtree(part / "runs" / "family")
    page = page_of(part)
    monkeypatch.setattr(FAMILY, "section", lambda study, kept: "")
    assert page_of(part) == page
    assert HEADING not in page
    assert "\n\n## Pictures\n" in page
    folders = [path.name for path in (part / "docs" / "results").iterdir() if path.is_dir()]
    assert folders == ["base-b1-z2-s0-d1c89a85"]


def test_a_page_of_such_runs_alone(part):
    (baseline,) = (part / "runs").glob("base-*")
    shutil.rmtree(baseline)
    assert f"## {HEADING}" in page_of(part)


def test_copies_alone_give_the_same_page_and_hold_no_pictures(part, monkeypatch):
    monkeypatch.setattr(FAMILY, "drawn", DRAWN)
    page, kept = page_of(part), part / "docs" / "results"
    files = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    assert page_of(part, "nothing") == page
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == files
    for run in kept.glob("beta-*"):
        assert {path.name for path in run.iterdir()} == {"config.yaml", "results.json"}
    shutil.rmtree(next(kept.glob("beta-factor-*")))  # the control
    assert page_of(part, "nothing") != page


def test_every_run_leads_to_its_config_and_command(part):
    page_of(part)
    job = jobs("loss=factor_vae", "loss.gamma=20", "seed=1")[0]
    command = f"python train.py -m {' '.join(job)}"
    row = origin(part, f"beta, factor, gamma 20: `{command}`")
    assert (part / "docs" / "results" / row[1].partition("](")[2].rstrip(")")).is_file()
    assert row[3:6] == ["`cccccccccc`", "`aaaaaaaaaa`", "`dddddddddd`"]


def test_charts_are_drawn_from_the_same_runs_and_an_old_one_is_removed(part, monkeypatch):
    monkeypatch.setattr(FAMILY, "drawn", DRAWN)
    page, kept = page_of(part), part / "docs" / "results"
    names = [f"family-{name}.png" for name in ("rate_distortion", "tc_recon", "mi_kl")]
    assert all((kept / name).read_bytes().startswith(b"\x89PNG\r\n") for name in names)
    places = [page.index(f'src="results/{name}"') for name in names]
    assert places == sorted(places)
    assert places[-1] < page.index("<details")
    assert "*Rate and distortion.*" in page
    before = (kept / names[0]).read_bytes()
    for run in (part / "runs" / "family").iterdir():
        results = read_record(run / "results.json")
        results["test"]["kl"] += 100 * ("s1" in run.name)
        del results["decomposition"]
        write_record(run / "results.json", results)
    page = page_of(part)
    assert [(kept / name).exists() for name in names] == [name in page for name in names] == [True, False, False]
    assert (kept / names[0]).read_bytes() != before


def test_its_draws_are_alike_but_may_differ_from_those_of_other_runs(part):
    baseline = next((part / "runs").glob("base-*")) / "results.json"
    results = read_record(baseline)
    write_record(baseline, results | {"decomposition": {"mi": 1.0, "settings": {"num_samples": 500}}})
    page_of(part)
    write(part / "runs", jobs("loss=factor_vae", "loss.gamma=20", "seed=0")[0], 250.0, draws=500)
    with pytest.raises(FmvaeError, match=r"decomposition was measured with .*500"):
        page_of(part)


# --- the words ------------------------------------------------------------------------------------------------

WORDS = """<!-- not on the page -->
FactorVAE has a TC of {beta, factor, gamma 20: TC},
the ELBO one of {beta, elbo, β 4: TC}.

At last {conv, elbo, β 1: dimension-wise KL}.

No number here.
"""


def test_words_are_filled_from_the_runs_and_never_written(part):
    FAMILY.finding.write_text(WORDS, encoding="utf-8")
    page = page_of(part)
    elbo = f"2.420 ± {np.std([2.4, 2.44], ddof=1):.3f}"
    assert f"has a TC of 2.500 ± 0.050,\nthe ELBO one of {elbo}.\n\nNo number here." in page
    assert "not on the page" not in page
    assert "At last" not in page  # its run is not there
    write(part / "runs", jobs("model=conv", "seed=0", "beta.value=1")[0], 230.0)
    assert "At last 0.230 ± 0.005.\n\nNo number here." in page_of(part)
    assert FAMILY.finding.read_text(encoding="utf-8") == WORDS


@pytest.mark.parametrize("field", ["{beta, factor, gamma 21: TC}", "{beta, elbo, β 4: tc}", "{base: TC}"])
def test_a_field_of_no_row_or_column_is_refused(part, field):
    FAMILY.finding.write_text(f"It is {field}.", encoding="utf-8")
    with pytest.raises(
        FmvaeError, match=r"family\.md: .* is no row and column .*beta, factor, gamma 20;.*TC"
    ) as error:
        page_of(part)
    assert field in str(error.value)


@pytest.mark.slow
def test_the_words_of_the_page_have_fields_of_the_sweep(part, monkeypatch):
    set_findings(monkeypatch, FINDINGS)
    monkeypatch.setattr(study, "sweep_jobs", sweep_jobs)
    assert FAMILY.finding.is_file()
    FAMILY.told(FAMILY.read(part / "runs", part / "docs" / "results"))


@pytest.mark.slow
def test_the_page_is_what_its_command_writes_from_its_copies(tmp_path, monkeypatch):
    set_findings(monkeypatch, FINDINGS)
    monkeypatch.setattr(study, "sweep_jobs", sweep_jobs)
    monkeypatch.setattr(FAMILY, "drawn", DRAWN)
    shutil.copytree(PROJECT_ROOT / "docs" / "results", tmp_path / "docs" / "results")
    names = ("results.md", "results/classes.md", "results/provenance.md")

    def written() -> list[bytes]:
        write_page(tmp_path, tmp_path / "docs", "python -m fmvae.report reference")
        return [(tmp_path / "docs" / name).read_bytes() for name in names]

    committed = [(PROJECT_ROOT / "docs" / name).read_bytes() for name in names]
    assert written() == committed
    shutil.rmtree(next((tmp_path / "docs" / "results").glob("base-b1-z10-*")))
    assert written() != committed
