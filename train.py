"""Train a VAE as the config says; the same command continues what is unfinished. See `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from fmvae.cli import job, launch


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed: DictConfig) -> float:
    """One run; returns its test negative ELBO in nats per image, for sweepers to minimise."""

    def train(config: dict, overrides: list[str]) -> float:
        from fmvae.experiments import train  # brings torch, which tab completion and --help don't need

        return train(config, overrides)["test"]["neg_elbo" if "beta" in config else "loss"]

    return job(train, composed)


if __name__ == "__main__":
    launch(main)
