"""Train, measure and compare variational autoencoders."""

__version__ = "1.0.0"
