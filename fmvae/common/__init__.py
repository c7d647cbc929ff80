"""Disks, locks, streams, signals, command lines and torch's settings. Nothing here depends on VAEs."""
