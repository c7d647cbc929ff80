"""fmvae.errors: one line that says what, why, and the way out."""

import pickle
from pathlib import Path

import pytest

from fmvae.errors import ConfigError, DataError, FmvaeError, NumericsError, RunError

KINDS = [FmvaeError, ConfigError, DataError, RunError, NumericsError]


@pytest.mark.parametrize("kind", KINDS)
def test_the_message_is_subject_problem_and_way_out(kind):
    error = kind("beta.value", "must be >= 0, got -1", "set beta.value=1")
    assert str(error) == "beta.value: must be >= 0, got -1; set beta.value=1"
    assert (error.subject, error.problem, error.way_out) == (
        "beta.value",
        "must be >= 0, got -1",
        "set beta.value=1",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_caught_as_fmvae_error(kind):
    with pytest.raises(FmvaeError):
        raise kind("a", "b", "c")


def test_the_kinds_are_told_apart():
    for kind in KINDS[1:]:
        assert [other for other in KINDS[1:] if issubclass(kind, other)] == [kind]


def test_the_message_is_one_line_whatever_the_parts_hold():
    error = DataError("data.root", "first\nsecond\r\n\tthird", "  do\nthis ")
    assert str(error) == "data.root: first second third; do this"


def test_a_path_may_be_the_subject():
    error = DataError(Path("some/file"), "is damaged", "delete it")
    assert error.subject == "some/file"
    assert str(error).startswith("some/file: ")


@pytest.mark.parametrize("kind", KINDS)
def test_pickling_keeps_the_kind_and_all_parts(kind):
    """Sweep launchers send errors between processes."""
    error = kind(Path("a/b"), "is damaged\nbadly", "delete it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert (copy.subject, copy.problem, copy.way_out) == (error.subject, error.problem, error.way_out)


def test_pickling_needs_the_reduce_method():
    kind, arguments, *_ = Exception.__reduce__(FmvaeError("a", "b", "c"))  # what Python does by default
    assert kind is FmvaeError
    with pytest.raises(TypeError):
        kind(*arguments)
