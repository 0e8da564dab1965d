"""The winner of a study: registered once, judged once."""

from types import SimpleNamespace

import pytest

from kits_ml.config import ConfirmSettings
from kits_ml.errors import InputError
from kits_ml.studies import winner as winning
from kits_ml.tracking.registry import Registered

WINNER = {"run_id": "r", "settings": {"batch_size": 4, "num_threads": 1, "experiment": "e"}}


@pytest.fixture
def registry(monkeypatch):
    """What a registry would do, and what was asked of it."""
    told = []
    state = SimpleNamespace(told=told, there=None, decided=False, error=None)

    def promote(settings):
        told.append(("promote", settings.version, settings.experiment, settings.batch_size))
        if state.error:
            raise state.error
        return SimpleNamespace(run_id="g", registered=Registered(name="m", version="3", aliases=("champion",)))

    def register(settings):
        told.append(("register", settings.run_id))
        return Registered(name=settings.model_name, version="3", aliases=("challenger",))

    monkeypatch.setattr(winning, "promote", promote)
    monkeypatch.setattr(winning, "register", register)
    monkeypatch.setattr(winning.champions, "version_of_run", lambda name, run_id: state.there)
    monkeypatch.setattr(winning.champions, "was_decided", lambda version: state.decided)
    monkeypatch.setattr(
        winning.registry, "registered", lambda name, version: Registered(name=name, version=version, aliases=())
    )
    monkeypatch.setattr(winning.tracking, "check_tracking_server", lambda: None)
    monkeypatch.setattr(winning.tracking, "put_below", lambda *ids, tags: told.append(("below", *ids)))
    return state


def test_the_winner_is_challenger_and_goes_through_the_gate(registry):
    settings = ConfirmSettings(study="small", model_name="m")
    registered, promotion = winning.register_winner(WINNER, settings)
    assert registry.told == [("register", "r"), ("promote", 3, "e", 4), ("below", "g", "r")]
    assert (registered.aliases, promotion.run_id) == (("champion",), "g")


def test_what_was_registered_and_decided_is_not_again(registry):
    settings = ConfirmSettings(study="small", model_name="m")
    registry.there = SimpleNamespace(version="3")
    winning.register_winner(WINNER, settings)  # killed before the gate
    assert [one[0] for one in registry.told] == ["promote", "below"]
    registry.told.clear()
    registry.decided = True
    registered, promotion = winning.register_winner(WINNER, settings)
    assert (registered.version, promotion, registry.told) == ("3", None, [])


def test_a_gate_that_gives_no_answer_costs_nothing(registry, caplog):
    registry.error = InputError("model m: no evidence")
    registered, promotion = winning.register_winner(WINNER, ConfirmSettings(study="small", model_name="m"))
    assert (registered.aliases, promotion) == (("challenger",), None)
    assert "model m: no evidence); try `kits-ml promote`" in caplog.text
    registry.told.clear()
    winning.register_winner(WINNER, ConfirmSettings(study="small", model_name="m", promote=False))
    assert registry.told == [("register", "r")]
