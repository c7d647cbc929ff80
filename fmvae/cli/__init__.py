"""The command lines of train.py and evaluate.py: arguments before Hydra reads them, and errors as one line."""
