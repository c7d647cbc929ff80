# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first look at fmvae
#
# Train two small variational autoencoders (VAEs) on Fashion-MNIST, look at them and compare them: under a
# minute on two processor cores. Everything here is also a command in a terminal; the notebook calls the same
# functions, so it gets the same numbers.
#
# Run it with the project's environment (`.venv`) as the kernel. The dataset is fetched the first time, if it is
# not in `data/` yet.

# %%
import json
import logging
import sys
import tempfile
from pathlib import Path

import torch
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmvae.config import compose
from fmvae.config.stored import to_yaml
from fmvae.data.split import to_float
from fmvae.experiments import train
from fmvae.measurement import load_run
from fmvae.runs.recorder import render
from fmvae.visualization.tiles import show_tiles, tile, tile_centres

logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)  # what train.py says, below the cells
logging.getLogger("fmvae").setLevel(logging.INFO)

# The runs of this notebook go into a folder that is deleted with the kernel.
# To keep them, use a folder of your own: OUTPUTS = PROJECT_ROOT / "outputs" / "notebook", from fmvae.config.
scratch = tempfile.TemporaryDirectory(prefix="fmvae-")
OUTPUTS = Path(scratch.name)


def show(figure: Figure) -> None:
    """Display a figure. Those of this project are made without pyplot, which would display them by itself."""
    display(Image(render(figure)))


# %% [markdown]
# ## 1. The config
#
# A run is its config. `compose` takes what you would type behind `python train.py` and returns all settings,
# checked.
#
# - `data=fashion_mnist_small` is a fixed tenth of the dataset: 5,400 training, 600 validation and 1,000 test
#   images.
# - `evaluation=fast` measures the loss alone, `figures=none` writes no pictures into the run's directory.
# - `latent_dim=2` is the number of latent dimensions, z.
# - `beta` is the weight of the KL in the objective that training minimises, recon + beta · KL; it is 1 unless
#   you say otherwise, which makes the objective the negative ELBO.

# %%
QUICK = [
    "data=fashion_mnist_small",
    "trainer.epochs=3",
    "evaluation=fast",
    "figures=none",
    f"output_root='{OUTPUTS}'",
]
overrides = [*QUICK, "latent_dim=2"]
config = compose(overrides)
print(to_yaml(config))

# %% [markdown]
# ## 2. Train
#
# `train` is the function that `train.py` calls. It writes everything into one directory, named by the config.
#
# - **Nats per image**, the unit of every loss: a nat is a unit of information (1.44 bits), and the losses are
#   summed over an image's 784 pixels, or over the latent dimensions, and averaged over images. Lower is better.
# - **recon** is the negative log-likelihood of the image, given a latent vector drawn from its posterior.
# - **KL** measures how far the posteriors of single images are from the prior, a standard normal distribution.
#   It is an upper bound of what the latent vector tells of its image.
# - **−ELBO** = recon + KL is an upper bound of the negative log-likelihood, whatever beta was.

# %%
results = train(config, overrides)

# %% [markdown]
# Run that cell again: it trains nothing and shows the stored result, since the run of this config is complete.
# An interrupted one continues where it stopped. To train it anew, add `"restart=true"` to the overrides.

# %% [markdown]
# ## 3. Open the run and look at the model
#
# A run's directory is all that is needed: its config, checkpoints and results are in it. `load_run` opens it, with
# the weights of the epoch with the best validation objective. Name any run of yours instead, such as
# `outputs/base-b1-z2-s0-...`.

# %%
z2 = load_run(OUTPUTS / results["run"])
visualizer, test = z2.parts.visualizer, z2.parts.data.test

num_weights = sum(weight.numel() for weight in z2.parts.model.parameters())
print(f"{z2.run.path.name}, epoch {z2.results['checkpoint']['epoch']}: {num_weights:,} weights")
print("\n".join(sorted(path.name for path in z2.run.path.iterdir())))
print("the results that training returned:", z2.results == results)

# %% [markdown]
# **Reconstructions**: one test image of each class, encoded and decoded again.

# %%
chosen = test.round_robin(10)  # one of each class
images, labels = to_float(test.images[chosen]), test.labels[chosen]
show(visualizer.show_reconstructions(images, labels))

# %% [markdown]
# **Samples**: latent vectors drawn from the prior and decoded. No image went in.

# %%
show(visualizer.generate_samples(49))

# %% [markdown]
# **Samples from a fitted density**: the posteriors of the training images do not fill the prior evenly. Here a
# mixture of Gaussians is fitted to them after training, and latent vectors are drawn from it instead.

# %%
generated = z2.sample(20, "gmm")  # images (20, 1, 28, 28) in [0, 1]

figure = Figure(figsize=(11, 2.6), layout="constrained")
show_tiles(figure.subplots(), tile(generated, 10))
show(figure)

# %% [markdown]
# **Latent traversal**: from the image on the left, one latent dimension per row takes the values above the
# columns, and the others stay. The KL of each dimension stands beside it; one with a KL near 0 changes nothing.

# %%
show(visualizer.latent_traversal(test, index=int(chosen[0])))

# %% [markdown]
# ## 4. Compare two runs
#
# The same with ten latent dimensions. In a terminal both are one command, a sweep: `python train.py -m
# latent_dim=2,10 data=fashion_mnist_small trainer.epochs=3`.

# %%
overrides_z10 = [*QUICK, "latent_dim=10"]
trained_z10 = train(compose(overrides_z10), overrides_z10)
z10 = load_run(OUTPUTS / trained_z10["run"])

RUNS = {"z = 2": z2, "z = 10": z10}

# %% [markdown]
# **The numbers**, from `results.json`, on the test images. The importance-weighted bound, IWAE, is closer to
# the negative log-likelihood than −ELBO is; it is there for runs that were trained without `evaluation=fast`.


# %%
def losses(results):
    """The losses of a run by name, in nats per image."""
    test, iwae = results["test"], results.get("iwae", {})
    bounds = {name.upper().replace("_", " "): iwae[name] for name in iwae if name.startswith("iwae_")}
    return {"recon": test["recon"], "KL": test["kl"], "−ELBO": test["neg_elbo"], **bounds}


columns = {name: losses(loaded.results) for name, loaded in RUNS.items()}
lines = [
    f"| Test, nats per image | {' | '.join(columns)} |",
    "|---|" + "---:|" * len(columns),
]
for loss in dict.fromkeys(loss for column in columns.values() for loss in column):
    cells = [f"{column[loss]:.2f}" if loss in column else "not measured" for column in columns.values()]
    lines.append(f"| {loss} | {' | '.join(cells)} |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# More dimensions can carry more of an image: expect a higher KL, and a recon that is lower by more than that.
# After three epochs on a tenth of the data both models are far from their end, and one seed says nothing of the
# spread between seeds.
#
# **Training curves**, from `metrics.jsonl`, which has a row per epoch. A training loss is the mean over the
# epoch, while the weights were changing; a validation loss is measured at its end, and so can be the lower of
# the two.

# %%
figure = Figure(figsize=(8, 4.5), layout="constrained")
axes = figure.subplots()
for (name, loaded), colour in zip(RUNS.items(), ["#4477aa", "#cc6633"], strict=True):
    rows = [json.loads(line) for line in loaded.run.metrics.read_text().splitlines()]
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, [row["train/objective"] for row in rows], "o--", color=colour, label=f"{name}, training")
    axes.plot(epochs, [row["val/objective"] for row in rows], "o-", color=colour, label=f"{name}, validation")
axes.set(title="Training curves: recon + beta · KL, beta = 1", xlabel="epoch", ylabel="nats per image")
axes.xaxis.set_major_locator(MaxNLocator(integer=True))
axes.legend()
show(figure)

# %% [markdown]
# **The same images, by both models.**

# %%
rows = {"original": images}
for name, loaded in RUNS.items():
    means = loaded.parts.visualizer.encode_means(images, labels)
    rows[name] = loaded.parts.visualizer.decode_means(means, labels)

figure = Figure(figsize=(11, 3.8), layout="constrained")
axes = figure.subplots()
show_tiles(axes, tile(torch.cat([row.cpu() for row in rows.values()]), len(images)))
axes.set_xticks(tile_centres(len(images), 28), [z2.parts.data.class_names[label] for label in labels.tolist()])
axes.set_yticks(tile_centres(len(rows), 28), rows)
axes.xaxis.tick_top()
axes.set_title("Reconstructions at the posterior mean")
show(figure)

# %% [markdown]
# **Their traversals, from the same image.** With ten dimensions, look for rows in which little happens.

# %%
for loaded in RUNS.values():
    show(loaded.parts.visualizer.latent_traversal(test, index=int(chosen[0])))

# %% [markdown]
# ## 5. Where to go next
#
# - All the data: `python train.py` trains the baseline for 30 epochs, and measures and draws everything.
# - Other choices: `model=conv`, `model=conditional`, `beta=4`, `likelihood=continuous_bernoulli`, `seed=1`.
#   Losses of different likelihoods can't be compared.
# - What `evaluation=fast` left out: `python evaluate.py run=<directory>` adds the IWAE bound, the distances to
#   the test images (with all the data) and the measures of the latent space to `results.json`, without training
#   again.
# - All curves and pictures of all runs: `tensorboard --logdir outputs`.
# - [README.md](../README.md) has the commands and a list of all pages, [faq.md](../docs/faq.md) questions and
#   answers, [architecture.md](../docs/architecture.md) how it works inside.
#
# This notebook is made from `notebooks/explore.py`. After a change there:
# `.venv/bin/jupytext --to ipynb --update notebooks/explore.py`.
