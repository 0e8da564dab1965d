"""Every preset is settings, and the report's is the report's."""

from pathlib import Path

import pytest

from kits_ml.config import MainSettings, PreprocessingSettings, SelectionSettings, TrainSettings
from kits_ml.options import read_config

FOLDER = Path(__file__).parents[1] / "experiments/presets"
PRESETS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_read_and_named(path):
    content = read_config(str(path))
    for cls in (TrainSettings, MainSettings):
        settings = cls.from_mapping(content, source=str(path))
        assert content.items() <= settings.to_dict().items()
    assert path.name in (FOLDER / "README.md").read_text()


def test_the_reports_preparation_is_the_default():
    settings = TrainSettings.from_mapping(read_config(str(FOLDER / "report.yaml")))
    assert settings.select(PreprocessingSettings) == PreprocessingSettings()
    assert settings.select(SelectionSettings) == SelectionSettings(selection="report")
    assert settings.loss == "categorical_crossentropy"
    assert not settings.augmentation
    assert (settings.batch_size, settings.steps_per_epoch, settings.epochs) == (50, 50, 5)
    assert (settings.optimizer, settings.learning_rate, settings.base_filters) == ("adam", 1e-3, 16)


def test_the_other_presets_change_something():
    for path in PRESETS:
        assert TrainSettings.from_mapping(read_config(str(path))) != TrainSettings(), path


def test_the_training_on_real_slices_stays_as_it_was_measured():
    assert not TrainSettings.from_mapping(read_config(str(FOLDER.parent / "kits_thin/config.yaml"))).augmentation
