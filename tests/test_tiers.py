"""Each promise is tried in ``make test``, and the table in CONTRIBUTING.md says how often."""

import importlib.util

import pytest

from tests.conftest import COUNTS, LIBRARIES
from tests.tiers import BEGIN, END, PAGE, RELIABILITY, ROOT, Counts, collected, needed, problems, promised, rows

TEXT = PAGE.read_text(encoding="utf-8")
SOME: Counts = {"tests/a/test_b.py::test_c": (1, 3), "tests/a/test_b.py::test_d": (0, 2)}


@pytest.fixture
def counts(pytestconfig) -> Counts:
    """Of the whole suite; of a process that was told to run a part of it, they are collected anew."""
    if missing := [name for name in needed() if importlib.util.find_spec(name) is None]:
        pytest.skip(f"without {', '.join(missing)}, not all tests are collected")
    whole = [str(ROOT / arg) for arg in pytestconfig.args] == [str(ROOT / "tests")]
    return pytestconfig.stash[COUNTS] if whole else collected()


def table(*lines: str) -> str:
    return "\n".join((BEGIN, "| promise | where | quick | all |", "| --- | --- | ---: | ---: |", *lines, END))


def test_each_promise_has_a_quick_test_and_the_numbers_are_right(counts):
    assert len(rows(TEXT)) > 20
    assert sum(every for _, every in counts.values()) > 4000
    assert not list(problems(TEXT, counts))


def test_libraries_that_files_of_tests_need_are_found():
    assert "optuna" in needed()
    assert set(needed()) <= {*LIBRARIES.values(), "onnx", "onnxruntime", "material"}


def test_every_promise_of_the_page_is_in_the_table():
    there = promised(RELIABILITY.read_text(encoding="utf-8"))
    assert len(there) > 12
    assert not set(there) - {row.promise for row in rows(TEXT)}


def test_a_table_that_is_right_has_no_problem():
    text = table("| Kept | `a/test_b.py` | 1 | 5 |", "| One | `a/test_b.py::test_c` | 1 | 3 |")
    assert [row.promise for row in rows(text)] == ["Kept", "One"]
    assert not list(problems(text, SOME))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("| Kept | `a/test_b.py::test_d` | 0 | 2 |", "no test of it is quick"),
        ("| Kept | `a/test_b.py` | 2 | 5 |", "1 of 5 tests are quick"),
        ("| Kept | `a/test_b.py` | 1 | 4 |", "1 of 5 tests are quick"),
        ("| Kept | `a/test_b.py`, `a/test_e.py` | 1 | 5 |", "there is no test a/test_e.py"),
    ],
)
def test_negative_control_a_promise_without_a_quick_test_and_a_wrong_number_are_seen(line, problem):
    (found,) = problems(table(line), SOME)
    assert problem in found


def test_negative_control_a_promise_that_is_added_to_the_page_is_missed():
    page = RELIABILITY.read_text(encoding="utf-8")
    added = page.replace("- **Folders**", "- **Clouds** as well.\n- **Folders**")
    assert set(promised(added)) - set(promised(page)) == {"Clouds"}


@pytest.mark.parametrize("number", range(7))
@pytest.mark.one_in(3)
def test_of_every_three_rows_the_first_is_quick(number, request):
    assert (request.node.get_closest_marker("slow") is None) == (number in (0, 3, 6))
