"""Optuna's plots leave nothing behind."""

import types

import matplotlib.pyplot as plt
import optuna

from kits_ml.studies.plots import write_plots


def test_other_figures_keep_their_style(tmp_path):
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 0, 1), n_trials=3)
    spec = types.SimpleNamespace(objectives=("val_foreground_iou",))
    before = dict(plt.rcParams)
    assert (tmp_path / "unet" / "history.png") in write_plots(tmp_path, {"unet": study}, spec)
    assert dict(plt.rcParams) == before
