"""A champion is only set from what was decided upon, and can be taken back."""

import threading

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from kits_ml.errors import InputError
from kits_ml.tracking import champions
from kits_ml.tracking.champions import Standing
from tests.tracking.registry_cases import NAME


@pytest.fixture
def versions(client, tmp_path):
    """Three versions without runs."""
    client.create_registered_model(NAME)
    return [str(client.create_model_version(NAME, (tmp_path / "model").as_uri()).version) for _ in range(3)]


def _promote(version: str) -> None:
    champions.set_champion(NAME, version, expected=champions.read_standing(NAME))


def _alias(client) -> str:
    return str(client.get_registered_model(NAME).aliases["champion"])


def test_the_history_grows_and_rolls_back_step_by_step(client, versions):
    assert champions.read_standing(NAME) == Standing(champion=None, history=())
    for version in versions:
        _promote(version)
    assert champions.read_standing(NAME) == Standing(champion="3", history=("1", "2", "3"))
    assert champions.roll_back(NAME) == ("3", "2")
    assert champions.roll_back(NAME) == ("2", "1")
    assert _alias(client) == "1"
    with pytest.raises(InputError, match="version 1 is its first champion, expected one that was champion before"):
        champions.roll_back(NAME)
    _promote("3")
    assert champions.read_standing(NAME).history == ("1", "3")


def test_a_champion_whose_history_could_not_be_written_is_the_champion(client, versions, monkeypatch, caplog):
    """To say that it was aborted would be false; what is missing is read off the alias."""
    _promote("1")
    with monkeypatch.context() as patch:

        def fail(self, name, key, value):
            raise MlflowException("no answer")

        patch.setattr(mlflow.MlflowClient, "set_registered_model_tag", fail)
        _promote("2")
    assert "model kits-unet: its history of champions was not written (no answer)" in caplog.text
    assert champions.read_standing(NAME) == Standing(champion="2", history=("1", "2"))


def test_a_champion_that_could_not_be_read_again_is_the_champion(versions, monkeypatch, caplog):
    read, answers = champions.read_standing, iter([True, False])

    def read_once(name):
        if next(answers):
            return read(name)
        raise InputError("model kits-unet: no answer")

    with monkeypatch.context() as patch:
        patch.setattr(champions, "read_standing", read_once)
        found = champions.set_champion(NAME, "1", expected=Standing(champion=None, history=()))
    assert found == read(NAME) == Standing(champion="1", history=("1",))
    assert "version 1 is set, but could not be read again" in caplog.text


@pytest.mark.parametrize("step", ["set_registered_model_tag", "set_registered_model_alias"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MlflowException("no answer")])
def test_a_rollback_that_is_cut_off_changes_nothing_and_can_be_done_again(versions, monkeypatch, step, error):
    """Version 3, which had to go, must not come back as the one before version 2."""
    for version in versions:
        _promote(version)
    with monkeypatch.context() as patch:

        def fail(self, *arguments):
            raise error

        patch.setattr(mlflow.MlflowClient, step, fail)
        with pytest.raises((KeyboardInterrupt, InputError)):
            champions.roll_back(NAME)
    assert champions.read_standing(NAME) == Standing(champion="3", history=("1", "2", "3"))
    assert [champions.roll_back(NAME) for _ in range(2)] == [("3", "2"), ("2", "1")]


def test_without_a_champion_there_is_nothing_to_roll_back(versions):
    with pytest.raises(InputError, match="has no champion, expected one to roll back"):
        champions.roll_back(NAME)


def test_a_former_champion_that_was_deleted_is_not_gone_back_to(client, versions):
    _promote("1")
    _promote("2")
    client.delete_model_version(NAME, "1")
    with pytest.raises(InputError, match="model kits-unet, version 1"):
        champions.roll_back(NAME)
    assert _alias(client) == "2"


def test_a_champion_by_hand_is_part_of_the_history(client, versions):
    _promote("1")
    client.set_registered_model_alias(NAME, "champion", "2")
    _promote("3")
    assert champions.read_standing(NAME).history == ("1", "2", "3")


def test_what_was_decided_on_another_champion_changes_nothing(client, versions):
    decided_on = champions.read_standing(NAME)
    _promote("1")  # meanwhile
    with pytest.raises(InputError, match="its champion was none when this was decided and is version 1 now; nothing"):
        champions.set_champion(NAME, "2", expected=decided_on)
    assert champions.read_standing(NAME) == Standing(champion="1", history=("1",))


def test_of_two_promotions_at_once_one_wins(versions):
    """Both decided on version 1; a barrier lets them go together."""
    _promote("1")
    decided_on = champions.read_standing(NAME)
    start, outcomes = threading.Barrier(2), {}

    def run(version: str) -> None:
        start.wait()
        try:
            outcomes[version] = champions.set_champion(NAME, version, expected=decided_on).champion
        except InputError as error:
            outcomes[version] = error

    threads = [threading.Thread(target=run, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [version for version, outcome in outcomes.items() if outcome == version]
    (loser,) = {"2", "3"} - {winner}
    assert "nothing was changed" in str(outcomes[loser])
    assert champions.read_standing(NAME) == Standing(champion=winner, history=("1", winner))


def test_on_a_server_the_one_that_was_overtaken_says_so(client, versions, monkeypatch):
    """Without a lock another promotion can set the alias right after ours."""
    monkeypatch.setattr(champions, "_lock_path", lambda uri: None)
    write_tag = mlflow.MlflowClient.set_registered_model_tag

    def overtaken(self, name, key, value):
        write_tag(self, name, key, value)
        client.set_registered_model_alias(NAME, "champion", "3")

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_tag", overtaken)
    with pytest.raises(InputError, match="another promotion made version 3 the champion at the same moment"):
        _promote("2")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////data/mlflow.db", "/data/mlflow.db.champion.lock"),
        ("sqlite:////data/../other/mlflow.db", "/other/mlflow.db.champion.lock"),
        ("sqlite:///:memory:", "None"),
        ("postgresql://somebody@server/mlflow", "None"),
        ("https://tracking.example.org", "None"),
        ("databricks", "None"),
    ],
)
def test_the_lock_lies_beside_the_database(uri, expected):
    assert str(champions._lock_path(uri)) == expected


def test_tags_come_and_go(client, versions):
    champions.tag_version(NAME, "1", {"gate": "refused", "gate_forced": "x" * 6000}, description="the first")
    champions.tag_version(NAME, "1", {"gate": "passed", "gate_forced": ""})
    found = client.get_model_version(NAME, "1")
    assert (found.tags, found.description) == ({"gate": "passed"}, "the first")


def test_an_unknown_model_or_version_gets_one_line(versions):
    with pytest.raises(InputError, match="model nobody"):
        champions.read_standing("nobody")
    with pytest.raises(InputError, match="model kits-unet, version 77"):
        champions.find_version(NAME, 77)
    with pytest.raises(InputError, match="model kits-unet, version challenger"):
        champions.find_version(NAME)


def test_the_version_of_a_run_and_whether_the_gate_decided_on_it(client, versions, tmp_path):
    assert champions.version_of_run(NAME, "nosuch") is None
    assert champions.version_of_run("nosuch", "nosuch") is None
    run_id = client.create_run("0").info.run_id
    for _ in range(2):
        client.create_model_version(NAME, (tmp_path / "model").as_uri(), run_id=run_id)
    found = champions.version_of_run(NAME, run_id)
    assert str(found.version) == "5"  # the newest
    assert not champions.was_decided(found)
    champions.tag_version(NAME, "5", {champions.DECISION_TAG: "some run"})
    assert champions.was_decided(champions.version_of_run(NAME, run_id))
