"""The observer that asks a pruner, alone."""

from types import SimpleNamespace

import pytest

from fmvae.errors import ConfigError, Pruned
from fmvae.sweeps.pruning import ENDED, Judge, check_pruner


class FakeTrial:
    """A trial that is to end after an epoch; ``broken`` stands for one that the study has given up."""

    def __init__(self, ends_after=None, attributes=None, broken=False):
        self.ends_after, self.user_attrs, self.broken = ends_after, {"run": "base", **(attributes or {})}, broken
        self.reported = {}

    def report(self, value, step):
        if self.broken:
            raise RuntimeError("Trial#0 has already finished")
        self.reported[step] = value

    def should_prune(self):
        return max(self.reported, default=0) == self.ends_after

    def set_user_attr(self, name, value):
        self.user_attrs[name] = value


def row(epoch, value):
    return {"epoch": epoch, "val/neg_elbo": value}


def trainer(*history, epochs=4):
    return SimpleNamespace(history=list(history), epoch=len(history), epochs=epochs)


@pytest.mark.parametrize("sign", [1, -1])
def test_each_epoch_is_reported_once_in_the_studys_direction_and_the_end_is_said(sign):
    trial = FakeTrial(ends_after=3)
    judge = Judge(trial, [1], sign, "python train.py seed=1")
    judge.on_train_start(trainer(row(1, 9.0), row(2, 8.0)))
    assert trial.reported == {2: sign * 8.0}
    with pytest.raises(Pruned) as ended:
        judge.on_epoch_end(trainer(*[row(1, 1.0)] * 3), row(3, 7.5))
    assert str(ended.value) == (
        "base: pruned after epoch 3 of 4: its validation −ELBO of 7.50 falls behind that of other trials; "
        "to finish it: python train.py seed=1"
    )
    assert trial.user_attrs[ENDED] == 3


def test_a_run_that_was_killed_after_the_decision_ends_again():
    """Its pruner may decide otherwise when it is asked a second time: halving has counted the epoch already."""
    ended = FakeTrial(attributes={ENDED: 2})
    with pytest.raises(Pruned, match="after epoch 2 of 4"):
        Judge(ended, [1, 2], 1, "").on_train_start(trainer(row(1, 9.0), row(2, 8.0)))
    Judge(FakeTrial(), [1, 2], 1, "").on_train_start(trainer(row(1, 9.0), row(2, 8.0)))  # control


def test_the_last_epoch_and_one_without_validation_end_nothing():
    judge = Judge(FakeTrial(ends_after=4), [], 1, "")
    judge.on_epoch_end(trainer(*[row(1, 1.0)] * 4), row(4, 7.0))
    silent = FakeTrial(ends_after=0)
    Judge(silent, [], 1, "").on_epoch_end(trainer({"epoch": 1}), {"epoch": 1})
    assert silent.reported == {}


def test_a_study_that_cannot_be_asked_fails_no_training(caplog):
    judge = Judge(FakeTrial(ends_after=1, broken=True), [], 1, "")
    for epoch in (1, 2, 3):
        judge.on_epoch_end(trainer(*[row(1, 1.0)] * epoch), row(epoch, 5.0))
    assert [record.getMessage() for record in caplog.records] == [
        "the search's pruner can't be asked any more (Trial#0 has already finished)"
    ]


def test_a_pruner_without_effect_is_refused():
    pytest.importorskip("optuna")
    settings = {"_target_": "optuna.pruners.MedianPruner"}
    check_pruner(settings, "hydra._internal.core_plugins.basic_launcher.BasicLauncher", ["fid"])
    with pytest.raises(ConfigError, match="runs of RayLauncher can't ask it"):
        check_pruner(settings, "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher", ["fid"])
    with pytest.raises(ConfigError, match=r"not defined for several objectives \(fid, neg_elbo\)"):
        check_pruner(settings, "x.BasicLauncher", ["fid", "neg_elbo"])
