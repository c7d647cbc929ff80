"""Explorers: pages in which the decoder of a trained model runs, with sliders for its latents."""

NAME = "explorer.html"  # in the directory of a run, or in a folder of runs
