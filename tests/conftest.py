"""Shared by all tests: one thread each, as several run at once, and a small dataset that is quick to learn."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for child processes too
