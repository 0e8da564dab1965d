"""The whole path: train, then segment one scan with the model that was registered."""

from __future__ import annotations

from pathlib import Path

from kits_ml.config import MainSettings, PredictSettings, TrainSettings
from kits_ml.errors import InputError
from kits_ml.workflows.predict import Predicted, predict
from kits_ml.workflows.train import Trained, train


def main(settings: MainSettings) -> tuple[Trained, Predicted]:
    """Trains, evaluates, registers and predicts.

    Raises:
        InputError: as `train` and `predict`; or `register` is off, so that there is no model to predict with.
    """
    if not settings.register:
        raise InputError("register: found false, expected true: the whole path predicts with the registered model")
    trained = train(settings.select(TrainSettings))
    case = trained.example_case
    predicted = predict(
        PredictSettings(
            model=trained.registered.uri,
            image=str(trained.example_scan),
            output=str(Path(settings.output) / f"{case}.nii.gz"),
            overlay=str(Path(settings.output) / f"{case}.png"),
            overwrite=True,
            batch_size=settings.batch_size,
            num_threads=settings.num_threads,
        )
    )
    return trained, predicted
