"""A run on disk: its lock and status, its checkpoints, its records, and what produced it."""
