"""docs/tutorial.md: its commands run, with less data and one epoch, and its runs have the names that it shows."""

import re
import shlex
from pathlib import Path

import pytest

from fmvae.config.composing import compose
from fmvae.config.identity import RunIdentity
from tests.cli.process import QUICK, ROOT, call
from tests.idx import write_idx_dataset

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
NAME = re.compile(r"\bbase-b([\d.]+)-z(\d+)-s(\d)-[0-9a-f]{8}\b")


def quick(command: str, folder: Path, data: list[str]) -> list[str]:
    """The arguments of Python for a command of the text, with other data, epochs, measures and another folder."""
    words = shlex.split(command.replace("outputs/", f"{folder}/"))
    if words[0] == "tensorboard":  # a server, which would not end; --inspect reads the same files
        return ["-m", "tensorboard.main", "--inspect", *words[1:]]
    assert words.pop(0) == "python"
    if words[0] == "train.py":
        words.remove("data=fashion_mnist_small")
        words[words.index("trainer.epochs=10")] = "trainer.epochs=1"
        words += [*data, *QUICK, f"output_root={folder}"]
    return words


@pytest.mark.slow
def test_every_command_runs_and_leaves_what_the_text_says(tmp_path):
    sha256 = write_idx_dataset(tmp_path / "data", 500, 300)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={tmp_path / 'data'}", f"data.sha256={{{digests}}}", "data.val_size=64"]
    outputs, said = tmp_path / "outputs", []
    for command in COMMANDS:
        done = call(*quick(command, outputs, data))
        assert done.status == 0, (command, done.stderr)
        said.append(done.stdout)
    study = outputs / "first_study"
    assert "6 runs" in said[0]
    assert "6 complete" in said[1]
    assert "6 complete" in said[2]
    assert "10 complete" in call("-m", "fmvae.report", "status", str(study)).stdout
    for promised in re.findall(r"`outputs/first_study/([\w/]+\.html)`", TEXT):
        assert (study / promised).is_file()
    # control: a misspelled key ends as a failure, so that a command that is wrong would be seen
    wrong = COMMANDS[0].replace("latent_dim", "latent_dims")
    assert call(*quick(wrong, outputs, data)).status == 1


def test_the_text_has_its_commands_and_its_runs_the_names_of_their_configs():
    assert len(COMMANDS) == 7
    named = {match[0]: match.groups() for match in NAME.finditer(TEXT)}
    assert len(named) == 6
    for name, (beta, z, seed) in named.items():
        job = ["data=fashion_mnist_small", f"beta={beta}", f"latent_dim={z}", f"seed={seed}", "trainer.epochs=10"]
        assert RunIdentity.of(compose(job)).name == name
        assert RunIdentity.of(compose([*job, "trainer.epochs=11"])).name != name  # the control
