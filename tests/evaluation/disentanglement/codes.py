"""Codes of made-up models with known factors, for tests of the scores."""

import numpy as np

SIZES = (3, 5, 4, 6)


def factors(num: int, seed: int = 0, sizes: tuple[int, ...] = SIZES) -> np.ndarray:
    """Independent uniform factors (num, K)."""
    drawn = np.random.default_rng(seed)
    return np.stack([drawn.integers(size, size=num) for size in sizes], 1)


def noise(num: int, width: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, width))


def blurred(given: np.ndarray, seed: int = 2, width: float = 0.5) -> np.ndarray:
    """Codes that follow a factor each, with some noise and some of the next factor, and one of noise alone."""
    z = given + 0.3 * np.roll(given, 1, 1) + width * noise(len(given), given.shape[1], seed)
    return np.concatenate([z, noise(len(given), 1, seed + 1)], 1)


def rotated(z: np.ndarray, degrees: float = 45) -> np.ndarray:
    """Rotate pairs of dimensions, each brought to variance 1 first, so that both take an equal share."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    z = (z - z.mean(0)) / z.std(0)
    return np.concatenate([z[:, pair : pair + 2] @ turn for pair in range(0, z.shape[1], 2)], 1)
