"""Train a VAE from a config; to resume an unfinished run, repeat the command. See `python train.py --help`."""

import math

import hydra
from omegaconf import DictConfig

from fmvae.cli.main import job, launch


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed: DictConfig) -> float | tuple[float, ...]:
    """Train one run; return what a search optimises, by the config's ``objective``."""

    def train(config: dict, overrides: list[str]) -> float | tuple[float, ...]:
        # these import torch, which tab completion and --help don't need
        if config["dry_run"]:
            from fmvae.common.command import say
            from fmvae.sweeps.status import forecast_run

            say(forecast_run(config, overrides))
            return math.nan
        from fmvae.experiments import objective, train

        return objective(config, train(config, overrides))

    return job(train, composed)


if __name__ == "__main__":
    launch(main)
