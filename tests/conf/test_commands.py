"""The command that trains a classifier: pasted into a shell, it trains one of the same images."""

import shlex
from typing import Any

import pytest

from fmvae.cli.arguments import prepared
from fmvae.config import compose
from fmvae.config.commands import OTHER_KEYS, classifier_command
from tests.data.own_images import drawn, folder, npz


def composed_by(command: str) -> dict[str, Any]:
    python, program, flag, name, *overrides = shlex.split(command)
    assert (python, program, flag, name) == ("python", "train.py", "--config-name", "classifier")
    return compose(prepared(overrides, "train"), "classifier")["data"]


def of_images(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in OTHER_KEYS}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=mnist"], "data=mnist"),
        (
            ["data=mnist", "data.root=/some where/it's,here", "data.num_train=50", "seed=3"],
            "data=mnist 'data.root=/some",
        ),
        (
            ["data=emnist", "data.split=letters", "data.binarize=static"],
            "data=emnist data.split=letters data.binarize=",
        ),
        (["data=cifar10", "data.class_names=[a b,'c,d',e,f,g,h,i,j,k,l]"], "data=cifar10 'data.class_names="),
        (
            ["data.image_shape=[1,32,32]", "data.num_classes=4"],
            "data=fashion_mnist 'data.image_shape=[1,32,32]' data.num_classes=4",
        ),
        (["data.sha256={a-b:'12',c:'34'}"], "data=fashion_mnist 'data.sha256={"),
        (["data=fashion_mnist_small"], "data=fashion_mnist data.num_test=1000"),
    ],
)
def test_it_chooses_the_same_images(overrides, words):
    node = compose(prepared(overrides, "train"))["data"]
    command = classifier_command(node)
    assert command.startswith(f"python train.py --config-name classifier {words}")
    assert of_images(composed_by(command)) == of_images(node)


def test_those_of_files_are_named_by_the_files(tmp_path):
    images, labels = drawn(60)
    npz(tmp_path / "mine.npz", images=images, labels=labels)
    folder(tmp_path / "photos", side=12)
    for overrides in (
        ["data=arrays", f"data.root={tmp_path / 'mine.npz'}"],
        ["data=image_folder", f"data.root={tmp_path / 'photos'}"],
    ):
        node = compose([*overrides, f"data.cache={tmp_path}"] if "image_folder" in overrides[0] else overrides)[
            "data"
        ]
        command = classifier_command(node)
        assert "sha256" not in command
        assert of_images(composed_by(command)) == of_images(node)


def test_dynamic_images_are_judged_by_a_classifier_of_static_ones():
    node = compose(["data=mnist", "data.binarize=dynamic"])["data"]
    assert classifier_command(node).endswith("data=mnist data.binarize=static")


def test_data_without_an_option_of_the_project_are_left_to_the_user():
    assert classifier_command({"_target_": "mine.Data"}).endswith("--config-name classifier data=<as here>")
