"""Models that load in no time."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.inference.predictor import Predictor, read_description
from kits_ml.workflows import segmenters
from tests.inference.networks import Fake, by_brightness


@pytest.fixture
def fake_model(tmp_path, monkeypatch) -> Callable[..., str]:
    """Makes a folder that `segmenters` takes for a model: `fake_model("a", network=..., description=...)`.

    The network, by default `by_brightness`, is not stored; no backend of Keras is started.
    """
    networks: dict[Path, Fake] = {}

    def make(name: str = "model", *, network: Fake | None = None, content: str = "", **description) -> str:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.keras").write_text(content or name)
        description = {"preprocessing": PreprocessingSettings(image_size=32).to_dict(), **description}
        (folder / "model.json").write_text(json.dumps(description))
        networks[folder] = network or by_brightness()
        return str(folder)

    def load(folder: Path, *, engine: str, num_threads: int, **options) -> Predictor:
        description = read_description(folder)
        settings = PreprocessingSettings.from_mapping(description["preprocessing"])
        return Predictor(networks[Path(folder)], settings, description=description, **options)

    monkeypatch.setattr(segmenters.Predictor, "load", load)
    monkeypatch.setattr(segmenters.runtime, "configure", lambda num_threads: None)
    return make
