"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md")]
MAX_COLUMNS = 9  # of a table on GitHub, without scrolling
NAMED = re.compile(r"`((?:fmvae|tests|conf|sweeps|benchmarks)/[\w./-]*\w)`")
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def missing(text: str) -> list[str]:
    """Files and folders of the project that a text names and that are not there."""
    return [name for name in NAMED.findall(text) if not (ROOT / name).exists()]


def anchors(text: str) -> set[str]:
    """What a link can name of a Markdown text: its headings, in the form that GitHub gives them."""
    titles = re.findall(r"^#+ (.+)$", CODE.sub("", text), re.MULTILINE)
    named = re.findall(r'<a id="([^"]+)">', text)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles} | set(named)


def dead_links(path: Path, text: str) -> list[str]:
    """Links in a document's text to files that are not there, or to headings that these do not have."""
    dead = []
    for name, anchor in LINK.findall(text):
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(f"{name}#{anchor}" if anchor else name)
    return dead


def wide_tables(text: str) -> list[str]:
    """First rows of tables with too many columns."""
    lines = CODE.sub("", text).splitlines()
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line.strip())]
    return [lines[i - 1] for i in rules if lines[i].count("|") - 1 > MAX_COLUMNS]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tables_of_a_document_fit_githubs_width(path):
    assert not wide_tables(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_are_there(path):
    assert not missing(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_a_document_lead_somewhere(path):
    assert not dead_links(path, path.read_text(encoding="utf-8"))


def test_the_readme_leads_to_every_page_and_to_own_code_on_its_first_screen():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {name for name, _ in LINK.findall(text)}
    assert not {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} - linked
    assert "](docs/extending.md)" in "".join(text.splitlines(keepends=True)[:40])


def test_a_file_that_is_gone_is_noticed():
    assert missing("see `fmvae/rules.py` and `fmvae/cli/main.py`") == ["fmvae/rules.py"]


def test_a_link_to_a_page_or_heading_that_is_gone_is_noticed():
    text = "# Here\n[a](docs/gone.md), [b](docs/faq.md#gone), [c](docs/faq.md), [d](#here), [e](https://x.org/y#z)"
    page = ROOT / "README.md"
    assert dead_links(page, text.replace("#here", "#every-day")) == ["docs/gone.md", "docs/faq.md#gone"]


def test_a_table_that_is_too_wide_is_noticed():
    fits = "| a |\n|---|\n" + "\n| b" + " | c" * 8 + " |\n" + "| ---: " * 9 + "|\n"
    assert not wide_tables(fits)
    wide = "| d" + " | e" * 9 + " |\n" + "| --- " * 10 + "|\n"
    assert [row[:3] for row in wide_tables(fits + "\n" + wide)] == ["| d"]


HYPHEN = re.compile(r"(?<![\w-])-ELBO\b")  # where a minus sign belongs


def test_what_people_read_has_minus_signs_before_elbo():
    """Only streams turn it into a hyphen, for terminals that cannot show it."""
    read = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fmvae/**/*.py"), *ROOT.glob("notebooks/*")]
    found = [path.name for path in read if path.is_file() and HYPHEN.search(path.read_text(encoding="utf-8"))]
    assert not found
    assert HYPHEN.search("the -ELBO")  # control
    assert not HYPHEN.search("beta-ELBO, −ELBO")


def unnamed_sweeps(text: str, word: str) -> list[str]:
    """Shipped sweeps that a text does not name; ``word`` is a pattern in which ``{}`` stands for the name."""
    names = [path.stem for path in (ROOT / "sweeps" / "sweep").glob("*.yaml")]
    return [name for name in names if not re.search(word.format(name), text)]


@pytest.mark.parametrize(
    ("name", "word"), [("docs/sweeps.md", r"^\| `sweep={}` \|"), ("conf/train.yaml", r"[\s=]{}(,|\s)")]
)
def test_every_sweep_that_is_shipped_is_listed_where_the_others_are(name, word):
    word, text = f"(?m){word}", (ROOT / name).read_text(encoding="utf-8")
    assert unnamed_sweeps(text, word) == []
    assert unnamed_sweeps(text.replace("generators", ""), word) == ["generators"]  # the control
