"""What TensorBoard's projector reads is what the model says, once, and whatever was there before."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import projector_plugin
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig  # type: ignore[attr-defined]

from fmvae.data import CLASS_NAMES
from fmvae.data.split import Split, to_float
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.visualization import projector_data, write_projector
from fmvae.visualization.projector import coloured
from tests.visualization.helpers import random_split, seeded, visualizer

CODES = ["1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "7f7f7f", "bcbd22", "17becf"]
TAB10 = [[int(code[at : at + 2], 16) / 255 for at in (0, 2, 4)] for code in CODES]  # matplotlib's colours


def read_back(directory: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Tensor, metadata rows and sprite sheet, found as the plugin finds them."""
    file = directory / "projector_config.pbtxt"
    config = text_format.Parse(file.read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    paths = embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path
    tensor, metadata, sprite = (projector_plugin._rel_to_abs_asset_path(path, str(file)) for path in paths)
    assert list(embedding.sprite.single_image_dim) == [28, 28]
    tensors = projector_plugin._read_tensor_tsv_file(tensor)
    return tensors, Path(metadata).read_text(encoding="utf-8").splitlines(), np.asarray(Image.open(sprite))


@pytest.mark.parametrize("model_class", [BaseVAE, ConditionalVAE])
def test_the_files_hold_means_names_and_images(model_class, tmp_path, capfd):
    model, split = seeded(model_class, 5, hidden_dim=16), random_split(30)
    data = projector_data(visualizer(model), split, 23)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_projector(tmp_path, data)
    tensors, rows, sheet = read_back(tmp_path)
    with torch.no_grad():
        mu = model.eval().encode(to_float(split.images), split.labels)[0].numpy()
    np.testing.assert_allclose(tensors, mu[:23], rtol=1e-5, atol=1e-6)
    assert rows[0] == "class\tindex"
    assert rows[1:] == [f"{CLASS_NAMES[index % 10]}\t{index}" for index in range(23)]
    assert sheet.shape == (5 * 28, 5 * 28, 3)  # a square of 25 places
    for index in (0, 4, 5, 22):
        row, column = divmod(index, 5)
        sprite = sheet[row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28]
        grey, label = split.images[index, 0].numpy()[:, :, None], int(split.labels[index])
        assert np.abs(sprite - grey * np.array(TAB10[label])).max() <= 1, "the greys, in the class's colour"
        assert np.abs(sprite - grey * np.array(TAB10[(label + 1) % 10])).max() > 20
    assert capfd.readouterr() == ("", "")


def test_every_grey_survives(tmp_path):
    images = torch.arange(256, dtype=torch.uint8).repeat(4)[: 28 * 28].reshape(1, 1, 28, 28)
    split = Split("test", images, torch.tensor([0]))
    data = projector_data(visualizer(seeded(BaseVAE, 3, hidden_dim=4)), split)
    write_projector(tmp_path, data._replace(colours=None))  # as without labels
    np.testing.assert_array_equal(read_back(tmp_path)[2][:, :, 0], images[0, 0])


def test_images_of_three_channels_keep_theirs_in_a_frame_of_the_class():
    images, colours = torch.full((2, 3, 28, 28), 0.5), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    framed = coloured(images, colours)
    assert (framed[:, :, 2:-2, 2:-2] == images[:, :, 2:-2, 2:-2]).all()
    for edge in (framed[:, :, 0], framed[:, :, -1], framed[..., 0], framed[..., 1]):
        assert (edge == colours[:, :, None]).all()
    assert coloured(images, None) is images


def test_a_second_time_replaces_the_first_and_no_events_are_left(tmp_path, capfd):
    split, shows = random_split(30), visualizer(seeded(BaseVAE, 3, hidden_dim=4))
    write_projector(tmp_path, projector_data(shows, split, 30))
    stale = tmp_path / "00000" / "posterior_means" / "ghost.tsv"
    stale.write_text("of another time")
    write_projector(tmp_path, projector_data(shows, split, 8))
    tensors, rows, sheet = read_back(tmp_path)  # of one embedding alone
    assert (len(tensors), len(rows), sheet.shape[0]) == (8, 9, 3 * 28)
    assert not stale.exists()
    assert not list(tmp_path.rglob("*tfevents*"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_few_dimensions_are_padded_as_the_projector_shows_three(latent_dim, tmp_path):
    data = projector_data(visualizer(seeded(BaseVAE, latent_dim, hidden_dim=4)), random_split(10))
    assert data.mu.shape == (10, latent_dim)
    write_projector(tmp_path, data)
    tensors, _, _ = read_back(tmp_path)
    assert tensors.shape == (10, 3)
    np.testing.assert_allclose(tensors[:, :latent_dim], data.mu, rtol=1e-5)
    np.testing.assert_array_equal(tensors[:, latent_dim:], 0)


def test_known_posteriors_are_used_and_nothing_is_an_error():
    split, shows = random_split(10), visualizer(seeded(BaseVAE, 3, hidden_dim=4))
    posteriors = shows.posteriors(split)
    marked = posteriors._replace(mu=posteriors.mu + 7)
    data = projector_data(shows, split, 4, marked)
    torch.testing.assert_close(data.mu, projector_data(shows, split, 4).mu + 7)
    for num, images in ((0, 10), (5, 0)):
        with pytest.raises(ValueError, match="give 1 or more"):
            projector_data(shows, Split("test", split.images[:images], split.labels[:images]), num)
