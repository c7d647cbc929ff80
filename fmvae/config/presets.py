"""Our options of Hydra's own groups, beside those that plugins bring."""

from typing import Any

from fmvae.config.hydra_internals import ConfigStore
from fmvae.config.project import CONF


class OwnPresets(dict[str, Any]):
    """What plugins store as options of one of Hydra's groups, less those that conf/hydra holds itself.

    Hydra takes a plugin's option of the same name for the schema of ours, and refuses whatever else ours holds.
    """

    def __setitem__(self, name: str, node: Any) -> None:
        if not any((CONF / "hydra").glob(f"*/{name}")):
            super().__setitem__(name, node)


def prefer_own_presets() -> None:
    """Where a plugin's launcher or sweeper has an option of the same name as ours, take ours."""
    stored = ConfigStore.instance().repo.setdefault("hydra", {})
    for group in ("launcher", "sweeper"):
        options = stored.get(group, {})
        stored[group] = OwnPresets()
        for name, node in options.items():
            stored[group][name] = node
