"""The report as a whole: files that say what the runs say, need nothing else, and repeat byte for byte."""

import csv
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from fmvae.errors import FmvaeError
from fmvae.report.__main__ import main
from fmvae.report.sweep import write_report
from tests.report.fakes import TC, edit_status, write_figure, write_run


class Page(HTMLParser):
    """What a browser would make of the page: texts, links, and what it would load."""

    VOID = ("meta", "img", "link", "br")
    OWN = ("style", "script")  # their text is the page's own

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.charts = 0
        self.own = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.charts += tag == "svg"
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "src" or (name.endswith("href") and tag != "a" and not (value or "").startswith("#")):
                self.loads.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            assert not name.startswith("on")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in self.OWN:
            self.texts.append(data)
        else:
            self.own += data
            assert not any(word in data for word in ("url(", "@import", "http:", "https:"))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Two models, two betas, two seeds, and a run that failed."""
    folder = tmp_path / "a sweep & more"
    for model in ("base", "conv"):
        for beta in (0.5, 4.0):
            for seed in range(2):
                run = write_run(folder, f"model={model}", beta=beta, seed=seed)
                for name in ("samples", "traversal_prior"):
                    write_figure(run, name, beta / 8)
                (run / "train.log").write_text("")
    failed = write_run(folder, beta=9.0, state="failed")
    edit_status(failed, error="<script>alert('x')</script> & more")
    return folder


def kinds(page: Page) -> Counter[str]:
    """How many pictures of each kind the page holds."""
    return Counter(load.removeprefix("data:image/").partition(";")[0] for load in page.loads)


def test_the_page_needs_nothing_but_itself_and_every_link_leads_somewhere(sweep):
    page = write_report([sweep])
    assert page == sweep / "report" / "index.html"
    parsed = Page(page)
    assert parsed.charts == 2
    assert kinds(parsed) == {"png": 2, "jpeg": 8}  # the contact sheets, and the pictures on them
    assert all(load.startswith("data:image/") for load in parsed.loads)
    assert not {"link", "iframe", "object"} & parsed.tags
    assert len(parsed.links) >= 9 * 2 + 8 * 3
    for link in parsed.links:
        address = urlparse(link)
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in page.read_text()
            continue
        assert not address.scheme
        assert not address.netloc
        assert (page.parent / unquote(address.path)).exists(), link


def test_what_comes_from_files_is_text(sweep):
    parsed = Page(write_report([sweep]))
    text = "".join(parsed.texts)
    assert "<script>alert('x')</script> & more" in text
    assert "a sweep & more" in text


@pytest.mark.slow
def test_the_parts_of_the_kl_have_figures_that_say_how_to_read_them(sweep):
    path = write_report([sweep])
    assert not {"tc_recon.png", "mi_kl.png"} & {file.name for file in path.parent.iterdir()}
    assert "MI = KL" not in "".join(Page(path).texts)
    for beta in (0.5, 4.0):
        parts = {"mi": 5.0, "tc": 1.0, "dimension_wise": 2.0}
        write_run(sweep, loss=TC, beta=beta, decomposition=parts)
    path = write_report([sweep])
    assert {"tc_recon.png", "mi_kl.png"} <= {file.name for file in path.parent.iterdir()}
    page = Page(path)
    assert page.charts == 4
    assert kinds(page)["png"] == 2
    text = "".join(page.texts)
    assert "distance below the line MI = KL" in text
    assert "TC is 0 if q(z)" in text
    shutil.rmtree(sweep / "report")
    for run in sweep.glob("base-tc-*"):
        shutil.rmtree(run)
    assert Page(write_report([sweep])).charts == 2


def test_page_and_tables_say_the_same(sweep):
    page = write_report([sweep])
    rows = list(csv.DictReader((page.parent / "table.csv").open(newline="")))
    assert [row["state"] for row in rows].count("complete") == 8
    markdown = (page.parent / "table.md").read_text()
    line = next(line for line in markdown.splitlines() if line.startswith("| conv | 2 | 4 |"))
    texts = Page(page).texts
    for cell in line.strip("|").split("|"):
        assert cell.strip().strip("*") in texts
    assert "failed" in markdown


def test_the_same_runs_give_the_same_bytes_and_another_number_other_ones(sweep, tmp_path):
    write_report([sweep], tmp_path / "one" / "report")
    (tmp_path / "two").mkdir()
    first = {file.name: file.read_bytes() for file in (tmp_path / "one" / "report").iterdir()}
    assert len(first) == 9
    write_report([sweep], tmp_path / "two" / "report")
    assert {file.name: file.read_bytes() for file in (tmp_path / "two" / "report").iterdir()} == first
    run = next(iter(sweep.glob("conv-b4-*-s0-*")))
    shutil.rmtree(run)
    write_run(sweep, "model=conv", beta=4.0, recon=260.0)
    write_report([sweep], tmp_path / "two" / "report")
    second = {file.name: file.read_bytes() for file in (tmp_path / "two" / "report").iterdir()}
    changed = {name for name in first if first[name] != second[name]}
    assert {"index.html", "table.csv", "table.md", "rate_distortion.png"} <= changed


def test_parts_of_a_sweep_are_merged_and_a_copy_changes_no_number(sweep, tmp_path):
    write_report([sweep], tmp_path / "whole")
    other = tmp_path / "other machine"
    shutil.copytree(sweep, other)
    for run in list(sweep.glob("conv-*")):
        shutil.rmtree(run)
    write_report([sweep, other], tmp_path / "merged")
    for name in ("table.csv", "rate_distortion.png", "sheet_samples.png"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_report_in_the_folder_is_no_run_and_an_earlier_ones_figures_go(sweep):
    first = write_report([sweep])
    content = first.read_bytes()
    assert write_report([sweep]).read_bytes() == content
    for run in sweep.glob("*-s*"):
        shutil.rmtree(run)
    write_run(sweep)
    write_report([sweep])
    assert sorted(file.name for file in first.parent.iterdir()) == [
        "index.html",
        "rate_distortion.pdf",
        "rate_distortion.png",
        "table.csv",
        "table.md",
    ]


def test_one_run_is_a_report(tmp_path):
    write_run(tmp_path / "sweep", fid=None)
    page = Page(write_report([tmp_path / "sweep"]))
    assert (page.charts, page.loads) == (1, [])
    assert "1 run: 1 complete. 1 setting" in "".join(page.texts)


@pytest.mark.parametrize("state", ["failed", "running", "interrupted"])
def test_without_a_complete_run_the_page_says_so(tmp_path, state):
    write_run(tmp_path / "sweep", state=state)
    path = write_report([tmp_path / "sweep"])
    page = Page(path)
    assert (page.charts, page.loads) == (0, [])
    said = "The run failed, so" if state == "failed" else "No run is complete yet"
    assert said in "".join(page.texts)
    assert said in (path.parent / "table.md").read_text()


@pytest.mark.slow
def test_sheets_of_conditional_models_say_which_class(sweep):
    assert "conditional models" not in "".join(Page(write_report([sweep])).texts)
    write_figure(write_run(sweep, "model=conditional"), "samples", 0.5)
    assert "conditional models: one row per class" in "".join(Page(write_report([sweep])).texts)


def test_damaged_results_are_listed_and_stop_nothing(sweep):
    run = next(iter(sweep.glob("conv-b4-*-s0-*")))
    (run / "results.json").write_text("{")
    page = write_report([sweep])
    assert "results.json: not a valid record" in "".join(Page(page).texts)
    assert f"{run.name},damaged" in (page.parent / "table.csv").read_text()


def test_what_failed_is_told_by_the_value_that_nothing_else_has(tmp_path):
    for lr in ("1e-3", "1e12"):
        write_run(tmp_path, f"optimizer.lr={lr}", state="failed" if lr == "1e12" else "complete")
    path = write_report([tmp_path])
    assert "lr 1e+12" in Page(path).texts
    assert "(lr 1e+12): failed." in (path.parent / "table.md").read_text()


def test_a_reader_that_has_read_enough_is_no_error(sweep):
    """As in ``... status outputs/x | head -1``."""
    script = "import sys; from fmvae.report.__main__ import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "status", str(sweep)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, b"")


def test_a_folder_without_runs_is_one_line_and_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fmvae: error: {folder}: no runs in it")
    assert error.count("\n") == 1
    assert list(folder.iterdir()) == []
    with pytest.raises(FmvaeError):
        write_report([folder])


def test_the_command_takes_folders_and_prints_the_page(sweep, tmp_path, capsys):
    assert main([str(sweep), "--to", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "here" / "index.html")
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2


def test_damage_is_said_beside_what_is_written(sweep, caplog):
    write_report([sweep])
    assert not caplog.messages  # a run that failed is no damage
    harmed = next(path.parent for path in sweep.rglob("results.json"))
    (harmed / "results.json").write_text("[1]")
    write_report([sweep])
    assert [str(harmed) in said and "not a valid record" in said for said in caplog.messages] == [True]


def test_pictures_beyond_the_limit_are_files_beside_the_page(sweep, monkeypatch):
    inlined = kinds(Page(write_report([sweep])))
    monkeypatch.setattr("fmvae.report.page.MAX_INLINE", 1)
    page = Page(write_report([sweep]))
    names = [load for load in page.loads if not load.startswith("data:")]
    assert names == ["sheet_samples.png", "sheet_traversal_prior.png"]
    assert len(page.loads) == 2
    assert inlined.total() == 10  # control: below the limit they are in it
