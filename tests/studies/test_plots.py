"""Optuna's plots leave nothing behind."""

import types

import matplotlib.pyplot as plt
import numpy as np
import optuna
from PIL import Image

from kits_ml.studies.plots import write_plots


def test_other_figures_keep_their_style(tmp_path):
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 0, 1), n_trials=3)
    spec = types.SimpleNamespace(objectives=("val_foreground_iou",))
    before = dict(plt.rcParams)
    assert (tmp_path / "unet" / "history.png") in write_plots(tmp_path, {"unet": study}, spec)
    assert dict(plt.rcParams) == before


def test_no_name_is_cut_off(tmp_path):
    def objective(trial):
        rate = trial.suggest_float("elastic_deformation_probability", 0, 1)
        return rate + (trial.suggest_categorical("loss", ["dice_crossentropy", "categorical_crossentropy"]) == "dice")

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=6)
    written = write_plots(tmp_path, {"unet": study}, types.SimpleNamespace(objectives=("val_foreground_iou",)))
    assert {path.stem for path in written} >= {"slices", "parallel_coordinates", "importances"}
    for path in written:
        picture = np.asarray(Image.open(path).convert("L"))
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert (edge == 255).all(), path.stem
