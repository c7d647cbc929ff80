"""Put conf/ and sweeps/ into a wheel, as fmvae/shipped/. All else is in pyproject.toml.

The folders lie beside the package, where its users edit them. An editable installation uses them there.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("conf", "sweeps")
SHIPPED = Path("fmvae", "shipped")


class BuildWithConfigs(build_py):
    """The usual command, with the config files as data of the package."""

    def run(self) -> None:
        super().run()
        for target, source in self._configs().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._configs()]

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self._configs()}

    def _configs(self) -> dict[str, str]:
        """The config files: where each is put, and where it is."""
        if self.editable_mode:
            return {}
        files = [path for folder in FOLDERS for path in sorted(Path(folder).rglob("*.yaml"))]
        files = [path for path in files if path.is_file() and not path.name.startswith((".", "~"))]
        return {str(Path(self.build_lib, SHIPPED, path)): str(path) for path in files}


setup(cmdclass={"build_py": BuildWithConfigs})
