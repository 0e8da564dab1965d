"""A training's end at the gate: whatever happens there, the training is finished."""

import pytest

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError, StoppedError
from kits_ml.tracking.registry import Registered
from kits_ml.workflows import packaging
from tests.tracking.registry_cases import NAME


def test_a_gate_that_cannot_be_asked_leaves_the_training_finished(monkeypatch, caplog):
    def pass_gate(settings):
        assert (settings.model, settings.version, settings.batch_size) == (NAME, 7, 3)
        raise InputError("tracking server: does not answer")

    monkeypatch.setattr(packaging, "pass_gate", pass_gate)
    registered = Registered(name=NAME, version="7", aliases=())
    assert packaging.put_through_gate(registered, TrainSettings(batch_size=3)) is None
    assert packaging.put_through_gate(registered, TrainSettings(promote=False)) is None
    assert packaging.put_through_gate(None, TrainSettings()) is None
    assert "kits-unet, version 7, did not come through the gate: tracking server: does not answer" in caplog.text


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt(), StoppedError("stopped by SIGTERM", signal_number=15)])
def test_who_stops_at_the_gate_hears_that_the_training_is_finished(ended_by, monkeypatch):
    def stop(settings):
        raise ended_by

    monkeypatch.setattr(packaging, "pass_gate", stop)
    message = f"finished and version 3 of {NAME} registered; its gate: kits-ml promote --model {NAME} --version 3"
    with pytest.raises(StoppedError, match=message):
        packaging.put_through_gate(Registered(name=NAME, version="3", aliases=()), TrainSettings())
