"""The summary of a run in the terminal says of how many images its numbers are."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from fmvae.evaluation.column import Column
from fmvae.measurement.summary import describe
from fmvae.runs.directory import RunDirectory

FID = {
    "generation": 2.0,
    "generation_se": 0.1,
    "reconstruction": 1.0,
    "floor": 0.5,
    "precision": 0.9,
    "recall": 0.8,
}
TERMS = ("objective", "objective_at_mean", "recon", "recon_at_mean", "kl", "neg_elbo")
RESULTS: dict[str, Any] = {
    "checkpoint": {"which": "best", "epoch": 3},
    "test": {**dict.fromkeys(TERMS, 12.5), "num_images": 1000},
    "iwae": {"iwae_8": 11.5, "num_images": 1000},
    "fid": {"pixels": {**FID, "num_images": 1000, "settings": {}}},
    "disentanglement": {"mig": 0.3, "chance": {"mig": 0.1}, "num_images": 15_000, "settings": {}},
    "samplers": {
        sampler: {
            "pixels": {**FID, "num_images": 1000},
            "bound": {"iwae_8": 10.5, "num_images": 1000},
            "accuracy": {"generated": {"overall": 0.9, "num_images": 500}},
        }
        for sampler in ("prior", "gmm")
    },
    "mine": {
        "mean": 0.25,
        "num_images": 1000,
        "columns": [Column("mean", "mean", direction="lower").stored()],
    },
}
HEADINGS = ("test, 1,000 images", "samples drawn from, 1,000 images", "disentanglement, 15,000 images")
NUMBERS = {
    "iwae": "IWAE 8   ",
    "samplers/gmm/bound": "IWAE 8 of another model, with (gmm) as its prior",
    "samplers/prior/pixels": "pixels: prior",
    "samplers/gmm/pixels": "pixels: gmm",
    "samplers/gmm/accuracy/generated": "images of the requested class, by sampler",
    "mine": "mine: mean",
}


def summary(results: dict[str, Any]) -> list[str]:
    return describe(RunDirectory(Path("base-s0-00000000")), results).split("\n")


def of_fewer(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if re.search(r"\([\d,]+ images\)", line)]


def test_equal_numbers_of_images_are_said_once_in_the_headings():
    lines = summary(RESULTS)
    assert of_fewer(lines) == []
    for heading in HEADINGS:
        assert sum(line.strip().startswith(heading + " ") for line in lines) == 1, heading
    for said in NUMBERS.values():
        assert sum(line.strip().startswith(said) for line in lines) == 1, said
    (start,) = (index for index, line in enumerate(lines) if "samples drawn from" in line)
    assert len({len(line) for line in lines[start : start + 3]}) == 1  # aligned
    score, mig = (line for line in lines if "disentanglement" in line or " MIG " in line)
    assert score.index("score") + len("score") == mig.index("0.300") + len("0.300")


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_fewer_images_than_its_heading_says_so(name):
    results = copy.deepcopy(RESULTS)
    block = results
    for part in name.split("/"):
        block = block[part]
    block["num_images"] = 50
    (line,) = of_fewer(summary(results))
    assert line.startswith(NUMBERS[name])
    assert line.endswith("(50 images)")
    del block["num_images"]  # as in results of an older version: nothing is claimed
    assert of_fewer(summary(results)) == []


def test_every_kind_of_distance_says_its_own_number():
    results = copy.deepcopy(RESULTS)
    results["fid"]["pixels"]["num_images"] = 50
    assert any(line.strip().startswith("pixels, 50 ") for line in summary(results))
