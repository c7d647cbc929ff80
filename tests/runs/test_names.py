"""Short names of runs: ``last``, beginnings of names, what is similar, and paths, which always win."""

import os
from pathlib import Path

import pytest

from fmvae.cli.completion import completed
from fmvae.errors import ConfigError
from fmvae.runs import names
from fmvae.runs.names import completions, run_path, run_paths

NAMES = (
    "base-b1-z2-s0-aaaaaaaa",
    "base-b4-z2-s0-bbbbbbbb",
    "conv-b1-z10-s0-cccccccc",
    "quick/base-b1-z10-s1-dddddddd",
    "quick/gated-b1-z2-s0-eeeeeeee",
    "again/gated-b1-z2-s0-eeeeeeee",
)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder of runs, of which the third was written to last, and some that are none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs"
    for age, name in enumerate((*NAMES, "conv-b1-z10-s0-cccccccc.old-1", "notes", "quick/report")):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").touch()
        os.utime(folder / name / "config.yaml", (1000 + age, 1000 + age))
    (folder / NAMES[2] / "status.json").touch()
    os.utime(folder / NAMES[2] / "status.json", (5000, 5000))
    monkeypatch.setattr(names, "OUTPUTS", folder)
    return folder


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("last", NAMES[2]),
        ("conv", NAMES[2]),
        ("base-b4", NAMES[1]),
        ("base-b1-z10", NAMES[3]),
        ("quick/ba", NAMES[3]),
        ("quick/gated", NAMES[4]),
        (NAMES[0], NAMES[0]),
        ("quick", "quick"),
        (NAMES[4], NAMES[4]),
    ],
)
def test_a_short_name_means_the_only_run_that_begins_so(root, typed, meant):
    assert run_path(typed).resolve() == root / meant
    assert run_path(typed, root).resolve() == root / meant


def test_an_existing_path_always_wins(root, tmp_path):
    for name in ("last", "conv", "base"):
        (tmp_path / name).mkdir()
        assert run_path(name) == Path(name)
    (tmp_path / "last").rmdir()
    assert run_path("last").resolve() == root / NAMES[2]  # the control: without it, the short name is meant


def test_the_last_run_is_the_one_written_to_most_recently(root):
    results = root / NAMES[0] / "results.json"
    results.touch()
    os.utime(results, (6000, 6000))
    assert run_path("last").resolve() == root / NAMES[0]


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        run_path(text)
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(f"run: {text!r}")
    return said


def test_an_ambiguous_beginning_lists_the_runs(root):
    said = refusal("base")
    assert all(name in said for name in NAMES if "base" in name)
    assert "conv" not in said
    assert f"{NAMES[5]}, {NAMES[4]}" in refusal("gated-b1-z2-s0-eeeeeeee")  # the same run in two sweeps
    for number in range(9):
        (root / f"many-s{number}-{number:08x}").mkdir()
        (root / f"many-s{number}-{number:08x}" / "config.yaml").touch()
    assert refusal("many").count("many-s") == 6
    assert "and 3 more" in refusal("many")


@pytest.mark.parametrize(
    ("typed", "similar", "not_similar"),
    [
        ("bsae-b4", NAMES[1], NAMES[2]),
        ("base-b4-z2-s0-bbbbbbbc", NAMES[1], NAMES[2]),
        ("qiuck", "quick", NAMES[2]),
        ("quick/gatde", NAMES[4], NAMES[3]),
        ("conv-b2-z10", NAMES[2], "gated"),
    ],
)
def test_a_name_that_is_not_there_names_similar_ones(root, typed, similar, not_similar):
    said = refusal(typed)
    assert f"did you mean {similar}" in said
    assert not_similar not in said


@pytest.mark.parametrize(
    "text", ["", "zebra", "outputs/nothing-at-all", "../base-b4", "/base-b4", "a\0b", "x" * 5000]
)
def test_what_resembles_no_run_stays_a_path(root, text):
    assert run_path(text) == Path(text)


def test_without_runs_nothing_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "OUTPUTS", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    assert run_path("last") == Path("last")
    assert completions("") == []


def test_the_working_directory_has_outputs_too_unless_another_folder_is_asked(root, tmp_path, monkeypatch):
    monkeypatch.setattr(names, "OUTPUTS", tmp_path / "elsewhere")
    assert run_path("conv").resolve() == root / NAMES[2]
    assert run_path("conv", tmp_path / "third") == Path("conv")


def test_lists_and_nothing_keep_their_form(root):
    assert run_paths(["conv", "base-b4"]) == [str(run_path("conv")), str(run_path("base-b4"))]
    assert run_paths("conv") == str(run_path("conv"))
    assert (run_paths(None), run_paths(""), run_paths([None])) == (None, "", [None])


def asked(line: str, shell: str = "bash") -> list[str] | None:
    answer = completed(["-sc", f"query={shell}"], {"COMP_LINE": line})
    return None if answer is None else answer.split("\n" if shell == "fish" else " ")


def test_tab_completes_the_value_of_run(root, tmp_path):
    assert asked("python evaluate.py run=base-b4") == [f"run={NAMES[1]}"]
    assert asked("python evaluate.py run=base-b4", "fish") == [f"run={NAMES[1]}"]
    assert asked("python evaluate.py force=true run=qui") == ["run=quick", f"run={NAMES[3]}", f"run={NAMES[4]}"]
    assert asked("python evaluate.py run=conv,la") == ["run=conv,last"]
    assert asked("python evaluate.py run=outputs/conv") == [
        f"run=outputs/{NAMES[2]}",
        f"run=outputs/{NAMES[2]}.old-1",
    ]
    assert asked(f"python evaluate.py output_root={tmp_path}/none run=") == [""]
    assert len(asked("python evaluate.py run=") or ()) > len(NAMES)


@pytest.mark.parametrize(
    "line", ["python evaluate.py ru", "python evaluate.py run=./", "python evaluate.py device="]
)
def test_all_else_is_left_to_hydra(root, line):
    assert asked(line) is None
    assert completed(["run=conv"], {"COMP_LINE": "python evaluate.py run=co"}) is None  # a program that runs
