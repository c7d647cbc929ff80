"""Tab completion of ``run=`` in evaluate.py. Hydra completes groups, keys, and paths with ``.`` or ``/`` first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fmvae.runs.names import completions

ASKING = ("-sc", "--shell-completion")
QUERY = "query="


def completed(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the answer to a shell that asks what may follow ``run=``; None for whatever Hydra answers.

    Hydra knows the options of groups, but not the values of a key, and its plugins for completion cannot be
    extended for one. So this question is answered before Hydra sees it, in the words that its scripts expect.

    Args:
        arguments: of the program, as Hydra's script for the shell calls it: ``-sc query=bash``.
        environment: holds the line typed so far as ``COMP_LINE``.
    """
    shell = next((argument.removeprefix(QUERY) for argument in arguments if argument.startswith(QUERY)), "")
    words = environment.get("COMP_LINE", "").split(" ")
    if not shell or not set(ASKING) & set(arguments) or not words[-1].startswith("run="):
        return None
    begun = words[-1].removeprefix("run=")
    if begun.startswith((".", "/", "\\", "[")):  # Hydra completes paths
        return None
    roots = [word.removeprefix("output_root=") for word in words if word.startswith("output_root=")]
    return ("\n" if shell == "fish" else " ").join(f"run={value}" for value in completions(begun, *roots[-1:]))
