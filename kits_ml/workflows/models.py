"""The architectures side by side: what they cost at one size."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from kits_ml import runtime
from kits_ml.config import ModelsSettings, TrainSettings
from kits_ml.models import ARCHITECTURES, build, cost


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """An architecture at one size.

    Attributes:
        name: as in the settings.
        title, paper: for a person.
        num_parameters: normalisation's moving averages included.
        gflops: of one image.
    """

    name: str
    title: str
    paper: str
    num_parameters: int
    gflops: float


def models(settings: ModelsSettings) -> list[ModelCost]:
    """Builds each architecture and counts.

    Raises:
        InputError: a size that cannot be built.
    """
    runtime.configure()
    found = []
    for name, architecture in ARCHITECTURES.items():
        model = build(TrainSettings(architecture=name, **settings.to_dict()))
        found.append(
            ModelCost(
                name=name,
                title=architecture.title,
                paper=architecture.paper,
                num_parameters=model.count_params(),
                gflops=cost.gflops(model),
            )
        )
        keras.backend.clear_session()
    return found
