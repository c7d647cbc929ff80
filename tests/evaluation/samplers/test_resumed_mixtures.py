"""A killed fit of mixtures goes on from its finished numbers of components and classes, with the same bits."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fmvae.errors import RunError
from fmvae.evaluation import partial as partial_results
from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers import candidates
from fmvae.evaluation.samplers.gmm import GaussianMixtureSampler
from tests.evaluation.samplers.latents import clusters
from tests.evaluation.samplers.test_fits import Killed, same
from tests.evaluation.samplers.test_store import data, draw, store  # noqa: F401  (a fixture)

TRAIN, VAL = clusters(240, 2, seed=1), clusters(90, 2, seed=2)
NUMBERS = [1, 2, 4, 60, 500]  # 4 cannot be fitted, by the fixture; 500 exceed the images


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Partial results are written whenever there are any."""
    monkeypatch.setattr(partial_results, "SECONDS", 0.0)


@pytest.fixture
def tried(monkeypatch) -> list[int]:
    """The numbers of components of the fits that are made, in turn."""
    numbers: list[int] = []
    plain = GaussianMixtureSampler._of_class

    def of_class(self: Any, part: Any, points: Any, number: int, seed: int) -> Any:
        numbers.append(number)
        if number == 4:
            raise RunError("sampler gmm", "4 components cannot be fitted", "give fewer")
        return plain(self, part, points, number, seed)

    monkeypatch.setattr(GaussianMixtureSampler, "_of_class", of_class)
    return numbers


@contextmanager
def killed_after(monkeypatch, num: int) -> Iterator[None]:
    """The fit inside is killed when it has made so many fits of one class."""
    plain, made = GaussianMixtureSampler._of_class, []

    def of_class(*given: Any) -> Any:
        if len(made) == num:
            raise Killed
        made.append(1)
        return plain(*given)

    with monkeypatch.context() as patch:
        patch.setattr(GaussianMixtureSampler, "_of_class", of_class)
        with pytest.raises(Killed):
            yield


def fit(classes: int, path: Path | None, key: str = "ours") -> GaussianMixtureSampler:
    sampler = GaussianMixtureSampler(classes, num_components=NUMBERS)
    sampler.fit(TRAIN, VAL, 0, Partial(path, {"of": key}))
    return sampler


@pytest.mark.parametrize("classes", [0, 3])
def test_killed_anywhere_it_goes_on_with_the_same_bits(classes, tried, tmp_path, monkeypatch):
    whole, path = fit(classes, None), tmp_path / "gmm.partial.safetensors"
    all_of_them = list(tried)
    assert all_of_them == ([1, 2, 4, 60] if not classes else [1, 1, 1, 2, 2, 2, 4, 60, 60, 60])
    assert [row["num_components"] for row in whole.state()[1]["candidates"]] == NUMBERS[:-1]
    for num in range(1, len(all_of_them)):
        with killed_after(monkeypatch, num):
            fit(classes, path)
        tried.clear()
        assert same(fit(classes, path), whole)
        # a number that failed leaves nothing to keep until the next fit, so it may be tried again
        assert tried in (all_of_them[num:], *([all_of_them[num - 1 :]] if all_of_them[num - 1] == 4 else []))
        tried.clear()
        other = GaussianMixtureSampler(classes, num_components=NUMBERS)
        other.fit(TRAIN, VAL, 0, Partial(path, {"of": "another"}))  # control: nothing of another fit
        assert tried == all_of_them
        path.unlink(missing_ok=True)


def test_what_is_kept_is_what_is_used(tmp_path, monkeypatch):
    """Control: with other numbers in the file, the result is another."""
    path = tmp_path / "gmm.partial.safetensors"
    with killed_after(monkeypatch, 2):
        fit(0, path)
    partial = Partial(path, {"of": "ours"})
    tensors, values = partial.read()
    assert values["chosen"]["num_components"] == 1  # 2 is being compared
    values["notes"] = [{"iterations": 7, "converged": True}]
    partial.keep({**tensors, "now.0.means": tensors["now.0.means"] + 1}, values)
    forged = fit(0, path).state()[1]["candidates"][1]
    assert forged["fits"] == values["notes"]
    assert forged["held_out"] != fit(0, None).state()[1]["candidates"][1]["held_out"]


def test_if_nothing_can_be_fitted_the_error_is_that_of_an_unbroken_fit(tmp_path, monkeypatch):
    def of_class(self: Any, part: Any, points: Any, number: int, seed: int) -> Any:
        raise self._singular(number, "always")

    monkeypatch.setattr(GaussianMixtureSampler, "_of_class", of_class)
    told = []
    for path in (None, tmp_path / "p.safetensors", tmp_path / "p.safetensors"):
        partial = Partial(path, {"of": "ours"})
        done = candidates.Finished(partial)
        if path and not path.exists():  # as if it was killed after the first number
            done.fail(1, GaussianMixtureSampler(num_components=1)._singular(1, "always"))
            done.keep_if_due(partial)
        with pytest.raises(RunError) as caught:
            fit(0, path)
        told.append(str(caught.value))
    assert len(set(told)) == 1
    assert told[0].startswith("sampler gmm: 60 components cannot be fitted (always); give fewer")


def test_the_store_keeps_a_partial_fit_and_removes_it(data, tmp_path, monkeypatch):  # noqa: F811
    asked = {"num_components": [1, 2, 3]}
    usual = store(tmp_path / "whole", data).get("gmm", asked)
    with killed_after(monkeypatch, 2):
        store(tmp_path / "killed", data).get("gmm", asked)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["gmm.partial.safetensors"]
    assert torch.equal(draw(store(tmp_path / "killed", data).get("gmm", asked)), draw(usual))
    files = [folder / "gmm.safetensors" for folder in (tmp_path / "whole", tmp_path / "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(list((tmp_path / "killed").iterdir())) == 1


def test_lines_say_what_is_fitted_and_how_far(tried, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "fmvae")
    fit(3, None)
    lines = [record.getMessage().strip() for record in caplog.records]
    assert lines == [
        "sampler gmm: 2 components, class 1 of 3 (fit 4 of 12)",
        "sampler gmm: 4 components, class 1 of 3 (fit 7 of 12)",
        "sampler gmm: 60 components, class 1 of 3 (fit 10 of 12)",
    ]
    monkeypatch.setattr(candidates, "SECONDS", 0.0)  # as if each took long
    with killed_after(monkeypatch, 4):
        fit(3, tmp_path / "p.safetensors")
    caplog.clear()
    fit(3, tmp_path / "p.safetensors")
    lines = [record.getMessage().strip() for record in caplog.records]
    assert lines[:2] == [
        "sampler gmm: continuing after 4 of 12 fits",
        "sampler gmm: 2 components, class 2 of 3 (fit 5 of 12)",
    ]
    assert lines[-1] == "sampler gmm: 60 components, class 3 of 3 (fit 12 of 12)"
