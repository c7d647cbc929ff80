"""Faster ways to run training steps than one model, one step at a time."""
