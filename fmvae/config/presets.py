"""Prefer the project's options of Hydra's launcher and sweeper groups over plugin options of the same name."""

from typing import Any

from fmvae.config.hydra_internals import ConfigStore
from fmvae.config.project import CONF


class OwnPresets(dict[str, Any]):
    """The plugins' options of one of Hydra's groups, without those that conf/hydra has as well.

    Hydra would use a plugin's option as the schema of our file of the same name, and refuse the file's other keys.
    """

    def __setitem__(self, name: str, node: Any) -> None:
        if not any((CONF / "hydra").glob(f"*/{name}")):
            super().__setitem__(name, node)


def prefer_own_presets() -> None:
    """Make Hydra use our file where a plugin has a launcher or sweeper option of the same name."""
    stored = ConfigStore.instance().repo.setdefault("hydra", {})
    for group in ("launcher", "sweeper"):
        options = stored.get(group, {})
        stored[group] = OwnPresets()
        for name, node in options.items():
            stored[group][name] = node
