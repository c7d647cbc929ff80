"""fmvae.objectives.dip: the penalty on the aggregate posterior's covariance, for both variants."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fmvae.objectives import DIPVAE, ELBO, Warmup, aggregate_covariance
from tests.objectives.tiny import (
    Fixed,
    assert_slopes_are_gradients,
    assert_vmap_changes_nothing,
    base,
    batch_for,
    called,
    from_config,
)

both = pytest.mark.parametrize("variant", [1, 2])


def posteriors(num: int = 40, latent_dim: int = 3) -> tuple[Tensor, Tensor]:
    """Correlated means that are not centred, and log-variances: each (num, latent_dim), float64."""
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, num, latent_dim, generator=generator, dtype=torch.float64)
    mu[:, 1] += mu[:, 0]
    return mu + 5, logvar - 1


def by_loops(variant: int, mu: Tensor, logvar: Tensor, off_diagonal: float, diagonal: float) -> float:
    """The penalty, entry by entry, from numpy's covariance."""
    covariance = np.cov(mu.numpy().T, bias=True)
    if variant == 2:
        covariance += np.diag(np.exp(logvar.numpy()).mean(0))
    total = 0.0
    for i, row in enumerate(covariance):
        for j, entry in enumerate(row):
            total += diagonal * (entry - 1) ** 2 if i == j else off_diagonal * entry**2
    return total


@both
def test_the_penalty_is_numpys(variant):
    mu, logvar = posteriors()
    terms = called(DIPVAE(variant, 3.0, 7.0), Fixed(mu, logvar))
    assert [*terms.parts] == ["recon", "kl", "dip"]
    found = terms.parts["dip"].item()
    assert found == pytest.approx(by_loops(variant, mu, logvar, 3.0, 7.0), rel=1e-12)
    # controls: the other variant, weights swapped, a covariance that is normalised by B - 1
    wrong = by_loops(3 - variant, mu, logvar, 3.0, 7.0), by_loops(variant, mu, logvar, 7.0, 3.0)
    unbiased = by_loops(variant, mu * math.sqrt(40 / 39), logvar, 3.0, 7.0)
    assert all(abs(found - other) > 1e-3 * found for other in (*wrong, unbiased))


def test_known_means_and_variances_give_the_closed_form():
    """Four means with covariance diag(a^2, b^2), and posteriors of variance v: II adds v to the diagonal."""
    a, b, v = 2.0, 0.5, 0.25
    mu = torch.tensor([[a, b], [a, -b], [-a, b], [-a, -b]]).double() + 3
    model = Fixed(mu, torch.full_like(mu, math.log(v)))
    one, two = (called(DIPVAE(variant, 10.0, 100.0), model).parts["dip"].item() for variant in (1, 2))
    assert one == pytest.approx(100 * ((a**2 - 1) ** 2 + (b**2 - 1) ** 2), rel=1e-12)
    assert two == pytest.approx(100 * ((a**2 + v - 1) ** 2 + (b**2 + v - 1) ** 2), rel=1e-12)
    # two equal dimensions of variance 1: nothing on the diagonal, and each of two entries off it is 1
    equal = Fixed(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double())
    assert called(DIPVAE(1, 10.0, 100.0), equal).parts["dip"].item() == pytest.approx(20, rel=1e-12)


def test_variant_2_sees_the_covariance_of_draws_from_the_posteriors():
    """For posteriors that are the prior, it is the identity: II has no penalty, and I one of 1 per dimension."""
    mu, logvar = posteriors()
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(20_000, *mu.shape, generator=generator, dtype=torch.float64)
    draws = (mu + noise * (0.5 * logvar).exp()).flatten(0, 1)
    expected = torch.cov(draws.T)
    assert (aggregate_covariance(mu, logvar) - expected).abs().max() < 0.02
    assert (aggregate_covariance(mu) - expected).abs().max() > 0.2
    collapsed = Fixed(torch.zeros(5, 3).double())
    assert called(DIPVAE(2), collapsed).parts["dip"] == 0
    assert called(DIPVAE(1), collapsed).parts["dip"] == 3 * 100


@both
def test_the_loss_is_the_elbo_and_the_penalty(variant):
    objective, model = DIPVAE(variant, beta=Warmup(4.0, fraction=0.5)), base(3)
    batch, numbers = batch_for(objective), objective.numbers(0.25)
    terms, elbo = objective(model, batch, numbers), ELBO(beta=objective.beta)(model, batch, numbers)
    torch.testing.assert_close(terms.loss, elbo.loss + terms.parts["dip"], rtol=1e-14, atol=0)
    assert terms.parts["dip"] > 1
    nothing = DIPVAE(variant, 0.0, 0.0, beta=objective.beta)(model, batch, numbers)
    assert torch.equal(nothing.loss, elbo.loss)


@both
def test_gradients_are_right(variant):
    objective, model = DIPVAE(variant), base(3)
    batch, numbers = batch_for(objective), objective.numbers(1.0)
    assert_slopes_are_gradients(lambda: objective(model, batch, numbers).loss, list(model.parameters()))


@both
def test_under_vmap_it_is_what_it_is_alone(variant):
    assert_vmap_changes_nothing(DIPVAE(variant))


@both
def test_the_config_gives_the_constructors_defaults_and_names_the_variant(variant):
    name, objective = from_config("dip_vae", variant=variant)
    default = DIPVAE(variant)
    assert isinstance(objective, DIPVAE)
    assert (name, objective.variant) == (f"dip{variant}", variant)
    assert (objective.off_diagonal, objective.diagonal) == (default.off_diagonal, default.diagonal)
    assert default.diagonal == {1: 100.0, 2: 10.0}[variant]
    assert from_config("dip_vae")[0] == "dip1"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"variant": 3}, "variant must be 1 or 2, got 3"),
        ({"off_diagonal": -1.0}, "off_diagonal must be finite and >= 0, got -1.0"),
        ({"diagonal": math.inf}, "diagonal must be finite and >= 0, got inf"),
    ],
)
def test_impossible_arguments_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        DIPVAE(**arguments)
