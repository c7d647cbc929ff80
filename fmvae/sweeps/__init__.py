"""Sweeps: the list of planned runs, running them, searching, and reporting the state of each run."""
