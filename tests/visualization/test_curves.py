"""The training curves are the history, and nothing is marked that was not validated."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from fmvae.visualization import training_curves
from fmvae.visualization.curves import SPLITS, shown_range


def history(num_epochs: int, *, validate_every: int = 1, betas=None) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, num_epochs + 1):
        row = {"epoch": epoch, "beta": betas[epoch - 1] if betas else 1.0, "lr": 1e-3}
        splits = ("train", "val") if epoch % validate_every == 0 else ("train",)
        for offset, split in enumerate(splits):
            recon, kl = 300 - epoch + offset, 5 + epoch / 2 + offset
            row |= {f"{split}/objective": recon + kl, f"{split}/recon": recon, f"{split}/kl": kl}
        rows.append(row)
    return rows


def panel(figure: Figure, title: str):
    (axes,) = (axes for axes in figure.axes if axes.get_title() == title)
    return axes


def line(axes, label: str) -> tuple[list, list]:
    (found,) = (found for found in axes.lines if found.get_label() == label)
    return list(found.get_xdata()), list(found.get_ydata())


@pytest.mark.parametrize("validate_every", [1, 3])
def test_curves_are_the_history(validate_every):
    rows = history(7, validate_every=validate_every)
    figure = training_curves(rows)
    assert len(figure.axes) == 3
    for title, quantity in (("Objective", "objective"), ("Reconstruction", "recon"), ("KL", "kl")):
        axes = panel(figure, title)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "nats per image")
        for split in ("train", "val"):
            kept = [row for row in rows if f"{split}/{quantity}" in row]
            drawn = [row["epoch"] for row in kept], [row[f"{split}/{quantity}"] for row in kept]
            assert line(axes, SPLITS[split]) == drawn
    assert len(line(panel(figure, "KL"), "validation")[0]) == 7 // validate_every


def test_rows_with_none_for_a_missing_value_are_skipped():
    rows = history(3)
    rows[1] |= dict.fromkeys(("val/objective", "val/recon", "val/kl"), None)  # type: ignore[arg-type]
    assert line(panel(training_curves(rows), "Objective"), "validation")[0] == [1, 3]


@pytest.mark.parametrize(
    ("objectives", "best"),
    [
        ([5.0, 3.0, 4.0], 2),
        ([5.0, 3.0, 3.0], 2),
        ([float("nan"), 3.0, 2.0], 3),
        ([3.0, float("nan"), 4.0], 1),
    ],
)
def test_the_best_validated_epoch_is_marked_and_nan_is_never_best(objectives, best):
    rows = history(3)
    for row, objective in zip(rows, objectives, strict=True):
        row["val/objective"] = objective
    figure = training_curves(rows)
    assert [line(axes, "best epoch")[0] for axes in figure.axes] == [[best, best]] * 3
    assert f"{objectives[best - 1]:.2f} at epoch {best}" in figure.get_suptitle()


def test_nothing_is_marked_without_validation():
    figure = training_curves(history(2, validate_every=5))
    assert [found.get_label() for found in figure.axes[0].lines] == ["training"]
    assert figure.get_suptitle() == "Training curves"


def test_beta_has_a_panel_only_if_it_varies():
    betas = [0.0, 0.5, 1.0, 1.0]
    figure = training_curves(history(4, betas=betas))
    (axes,) = (axes for axes in figure.axes if axes.get_ylabel() == "β")
    assert [np.asarray(values).tolist() for values in axes.lines[0].get_data()] == [[1, 2, 3, 4], betas]
    figure.draw_without_rendering()
    assert axes.get_window_extent().height < 0.4 * panel(figure, "KL").get_window_extent().height
    assert not any(axes.get_ylabel() == "β" for axes in training_curves(history(4)).axes)


@pytest.mark.parametrize("num_epochs", [1, 2, 30])
def test_epochs_are_ticked_as_integers(num_epochs):
    for axes in training_curves(history(num_epochs)).axes:
        ticks = axes.get_xticks()
        assert len(ticks) >= 1
        np.testing.assert_array_equal(ticks, np.round(ticks))


def test_an_empty_history_is_an_error():
    with pytest.raises(ValueError, match="0 epochs"):
        training_curves([])


# --- the range of values that a panel shows -------------------------------------------------------------------


def learning(spike: int | None = None, first: float = 120.0) -> list[dict[str, float]]:
    """A run that learns most in its first epoch, and may fail in another one."""
    rows = history(30)
    for row in rows:
        epoch = row["epoch"]
        for split in ("train", "val"):
            row[f"{split}/recon"] = 255 + first * 0.3 ** (epoch - 1) + 3 * 0.9**epoch + 500 * (epoch == spike)
    return rows


@pytest.mark.parametrize("spike", [None, 17])
def test_a_panel_is_not_ruled_by_its_first_epochs_and_its_axis_names_those_outside(spike):
    rows = learning(spike)
    axes = panel(training_curves(rows), "Reconstruction")
    low, high = axes.get_ylim()
    outside = [row["epoch"] for row in rows if not low <= row["train/recon"] <= high]
    assert high - low < 12  # of more than 120
    assert all(low <= row["train/recon"] <= high for row in rows[4:] if row["epoch"] != spike)
    largest = max(row["train/recon"] for row in rows)
    assert axes.get_xlabel() == f"epoch\nabove: {len(outside)} epochs, to {largest:.4g}"
    assert spike is None or spike in outside


def test_negative_control_a_panel_without_such_epochs_shows_all_and_says_nothing():
    axes = panel(training_curves(learning(first=0.0)), "Reconstruction")
    assert axes.get_autoscaley_on()
    assert axes.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [float("nan")] * 3,
        [5.0] * 12,
        [float("inf"), *[1.0, 1.1, 1.2] * 4],
        [1.3, 1.2, 1.1] * 4,
        [100.0, 1.0],
    ],
)
def test_few_constant_or_missing_values_are_shown_as_they_are(values):
    assert shown_range(range(1, len(values) + 1), values) is None


@pytest.mark.parametrize("num_epochs", [2, 9, 10])
def test_few_epochs_are_all_shown_though_the_first_stands_out(num_epochs):
    """Control: ten epochs are enough to leave the first one out."""
    axes = panel(training_curves(learning()[:num_epochs]), "Reconstruction")
    low, high = axes.get_ylim()
    shown = [low <= y <= high for line in axes.lines[:2] for y in np.asarray(line.get_ydata())]
    assert all(shown) == (num_epochs < 10)
    assert ("above" in axes.get_xlabel()) == (num_epochs == 10)
