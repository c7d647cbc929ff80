"""Between the shell and Hydra."""
