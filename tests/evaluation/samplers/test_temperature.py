"""The temperature of mixtures: covariances times T², the same fit, and what is stored stays current at 1."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from fmvae.config import compose
from fmvae.errors import ConfigError
from fmvae.evaluation.samplers import fit_settings
from fmvae.evaluation.samplers.gmm import GaussianMixtureSampler
from fmvae.measurement.sampling import in_words
from fmvae.measurement.summary import sampler_name
from fmvae.runs.checkpoint import load_checkpoint
from tests.chi_squared import cells, p_value
from tests.evaluation.samplers.latents import clusters, generator
from tests.evaluation.samplers.test_store import data, draw, fits, store  # noqa: F401  (fixtures)

TRAIN, VAL = clusters(600, 2, seed=1), clusters(300, 2, seed=2)


def made(temperature: float | None, num_components: int | list[int] = 3, classes: int = 0):
    at = {} if temperature is None else {"temperature": temperature}
    sampler = GaussianMixtureSampler(classes, num_components=num_components, **at)
    sampler.fit(TRAIN, VAL, 0)
    return sampler


@pytest.mark.parametrize("temperature", [0.5, 1.6])
def test_draws_of_one_component_have_t_squared_times_its_covariance(temperature):
    z, num = made(temperature, 1).sample(40_000, None, generator()), 40_000
    mean, covariance = TRAIN.moments()
    found = z.T.cov()
    # a variance of n draws has a relative standard error of sqrt(2 / n), 0.7 %
    torch.testing.assert_close(found.diagonal() / covariance.diagonal(), torch.full((2,), temperature**2).double(),
                               rtol=5 * (2 / num) ** 0.5, atol=0)  # fmt: skip
    torch.testing.assert_close(found, temperature**2 * covariance, rtol=0.04, atol=0.02)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.1)
    assert (found.diagonal() / covariance.diagonal() - temperature).abs().min() > 0.2  # not times T


def test_the_density_is_scipys_with_covariances_times_t_squared():
    sampler, plain = made(0.7), made(None).state()[0]
    z = 3 * torch.randn(40, 2, generator=generator(5), dtype=torch.float64)

    def expected(factor: float) -> np.ndarray:
        parts = zip(*(plain[f"0.{part}"].numpy() for part in ("weights", "means", "factors")), strict=True)
        logs = [np.log(w) + stats.multivariate_normal(m, factor * f @ f.T).logpdf(z.numpy()) for w, m, f in parts]
        return np.asarray(special.logsumexp(logs, axis=0))

    np.testing.assert_allclose(sampler.log_prob(z), expected(0.49), rtol=1e-11)
    assert np.abs(sampler.log_prob(z).numpy() - expected(0.7)).max() > 0.1


@pytest.mark.parametrize("temperature", [0.5, 1.6])
def test_at_any_temperature_the_density_integrates_to_one_and_draws_are_of_it(temperature):
    sampler = made(temperature)
    edges, mass = cells(sampler.log_prob, 2, 18, 432)
    assert mass.sum() == pytest.approx(1, abs=2e-4)
    own, foreign = (p_value(each.sample(20_000, None, generator()), edges, mass) for each in (sampler, made(1.0)))
    assert own > 1e-3
    assert foreign < 1e-9
    print(f"T = {temperature}: integral {mass.sum():.6f}, p = {own:.2f}, of draws at T = 1 {foreign:.1e}")


@pytest.mark.parametrize("classes", [0, 3])
def test_the_fit_does_not_depend_on_it_and_at_1_nothing_changes(classes):
    asked = [1, 3, 20]
    plain, one, cold = (made(temperature, asked, classes) for temperature in (None, 1.0, 0.5))
    labels = torch.arange(50) % 3
    (tensors, meta), z = plain.state(), plain.sample(50, labels, generator())
    for other in (one, cold):
        others, other_meta = other.state()
        assert meta == other_meta  # the choice of the number of components, too
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    assert torch.equal(one.sample(50, labels, generator()), z)
    assert torch.equal(one.log_prob(z, labels), plain.log_prob(z, labels))
    assert not torch.equal(cold.sample(50, labels, generator()), z)
    assert not torch.equal(cold.log_prob(z, labels), plain.log_prob(z, labels))
    assert (plain.settings, plain.drawing, one.drawing) == ({"num_components": asked}, {}, {})
    assert "temperature" not in plain.told()
    assert cold.told()["temperature"] == 0.5
    assert in_words(cold).endswith(", at temperature 0.5")
    assert sampler_name("gmm", {"fitted": cold.told()}) == f"gmm, {meta['num_components']}, T = 0.5"


def test_all_temperatures_share_one_file_which_is_the_one_that_there_was_before(data, tmp_path, fits):  # noqa: F811
    before = store(tmp_path, data).get("gmm", {"num_components": 2})  # without the key, as earlier versions
    assert load_checkpoint(tmp_path / "gmm.safetensors").meta["key"]["settings"] == {"num_components": 2}
    written = (tmp_path / "gmm.safetensors").read_bytes()
    later = store(tmp_path, data)
    at_1, cold = (later.get("gmm", {"num_components": 2, "temperature": t}) for t in (1.0, 0.5))
    assert torch.equal(draw(at_1), draw(before))
    assert not torch.equal(draw(cold), draw(before))
    assert later.get("gmm", {"num_components": 2}) is at_1
    assert later.get("gmm", {"num_components": 2, "temperature": 0.5}) is cold
    in_memory = store(None, data)
    for temperature, expected in ((0.5, cold), (1.0, before)):
        found = in_memory.get("gmm", {"num_components": 2, "temperature": temperature})
        assert torch.equal(draw(found), draw(expected))
    assert fits == ["gmm", "gmm"]  # one of a folder, one in memory
    assert (tmp_path / "gmm.safetensors").read_bytes() == written


@pytest.mark.parametrize("value", ["0", "0.009", "2.5", "-1", "hot", "null", "nan"])
def test_what_is_no_temperature_is_refused(value):
    told = r"^evaluation\.gmm\.temperature: .* is not a finite number >= 0\.01 and <= 2"
    with pytest.raises(ConfigError, match=told) as caught:
        compose([f"evaluation.gmm.temperature={value}"])
    assert "\n" not in str(caught.value)
    if value not in ("hot", "null"):
        with pytest.raises(ConfigError, match=f"{told}; give 1"):
            GaussianMixtureSampler(num_components=2, temperature=float(value))


def test_a_config_with_1_asks_for_what_earlier_ones_asked_for():
    usual = compose([])["evaluation"]
    assert usual["gmm"]["temperature"] == 1
    assert fit_settings(usual, "gmm") == {"num_components": [1, 10, 100]}
    cold = compose(["evaluation.gmm.temperature=1.5", "objective=samplers/gmm/resnet18/generation"])
    assert fit_settings(cold["evaluation"], "gmm") == {"num_components": [1, 10, 100], "temperature": 1.5}
