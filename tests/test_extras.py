"""Tests that need an extra are skipped by name where it is missing, and run where it is not."""

import pytest

from tests import conftest


def test_only_a_missing_library_is_a_reason_to_skip(monkeypatch):
    told = "prior: a flow needs the library zuko; install it: in the checkout, pip install -e '.[flows]'"
    monkeypatch.setattr(conftest.importlib.util, "find_spec", lambda name: None)
    assert conftest.missing_extra(told) == "flows"
    assert conftest.missing_extra("another error") is None
    monkeypatch.setattr(conftest.importlib.util, "find_spec", lambda name: object())
    assert conftest.missing_extra(told) is None


def test_the_libraries_are_those_of_the_extras():
    import tomllib

    from fmvae.config.project import PROJECT_ROOT

    extras = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, library in conftest.LIBRARIES.items():
        assert any(line.startswith(library) for line in extras[extra]), extra


@pytest.mark.parametrize("extra", conftest.LIBRARIES)
def test_negative_control_a_failure_of_another_kind_stays_one(extra):
    assert conftest.missing_extra(f"{extra} and {conftest.LIBRARIES[extra]}: assert 1 == 2") is None
