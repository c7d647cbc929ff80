"""The machine that a program runs on: its disks, locks, streams and command lines. Knows nothing of VAEs."""
