"""fmvae.errors: one line that says what, why, and the way out."""

import pickle
from pathlib import Path

import pytest

from fmvae.errors import (
    ConfigError,
    DataError,
    FmvaeError,
    NumericsError,
    RunError,
    is_of_a_run,
    of_a_run,
    of_the_machine,
)

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


def marked(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught, of_a_run():
        raise error
    return caught.value


@pytest.mark.parametrize("error", [KeyError("model"), RuntimeError("bug"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_runs_work_raises_is_known_by_its_mark(error):
    """Itself, its copy from a worker, and what is raised from it; and nothing else."""
    assert not is_of_a_run(error)
    assert marked(error) is error
    assert is_of_a_run(error)
    assert is_of_a_run(pickle.loads(pickle.dumps(error)))
    other = RuntimeError("the launcher's")
    other.__cause__ = error
    assert is_of_a_run(other)
    assert not is_of_a_run(type(error)("model"))
    assert not is_of_a_run(None)


def test_a_ring_of_causes_has_an_end():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_of_a_run(first)


def test_too_little_memory_is_told_without_lines_of_torchs_code():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**16)
    error = of_the_machine(caught.value)
    assert error
    assert error.problem.startswith("can't allocate memory: you tried to allocate 4")
    assert ".cpp" in str(caught.value)  # the control: torch says it
    assert ".cpp" not in str(error)
    assert of_the_machine(RuntimeError("another")) is None
