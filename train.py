"""Train a VAE as the config says; the same command continues what is unfinished. See `python train.py --help`."""

import math

import hydra
from omegaconf import DictConfig

from fmvae.cli import job, launch
from fmvae.config import is_vae


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed: DictConfig) -> float:
    """One run; returns its test negative ELBO in nats per image, for sweepers to minimise."""

    def train(config: dict, overrides: list[str]) -> float:
        # bring torch, which tab completion and --help don't need
        if config["dry_run"]:
            from fmvae.sweeping import forecast_run

            print(forecast_run(config, overrides))
            return math.nan
        from fmvae.experiments import train

        return train(config, overrides)["test"]["neg_elbo" if is_vae(config) else "loss"]

    return job(train, composed)


if __name__ == "__main__":
    launch(main)
