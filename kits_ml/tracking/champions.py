"""Who is champion, and who was before: changed by one process at a time, and only from what was decided upon.

The alias says who is champion; a tag of the registered model says who was, oldest first. A promotion is decided on
what was read before, and decisions take minutes, so the alias is only set where it is still as it was read. With a
SQLite registry a lock file beside the database makes reading again and setting one step. A remote registry offers no
such step: there, two promotions that both read within the milliseconds between reading and setting may both set, and
the later one stays. What is read after setting tells the earlier one if the other was already done; else the history
shows both.

A process may die between alias and tag. So a promotion sets the alias first, for a champion that the history lacks
counts as its latest, and a rollback writes the history first, which without its latest reads as before.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock
import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from kits_ml.errors import InputError, first_line
from kits_ml.tracking.registry import CHALLENGER, CHAMPION
from kits_ml.tracking.runs import check_tracking_server

log = logging.getLogger(__name__)

#: Tag of the registered model: versions that were champion, oldest first, the present one last.
HISTORY_TAG = "champions"

#: Tag of a version: the run in which the gate decided on it.
DECISION_TAG = "gate_run"

_KEPT = 100  # of the history
_LOCK_TIMEOUT_S = 60
_MAX_TAG = 5000  # what MLflow takes, characters


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a decision is based on.

    Attributes:
        champion: the version that has the alias; None where none has.
        history: versions that were champion, oldest first, the present one last.
    """

    champion: str | None
    history: tuple[str, ...]


def read_standing(name: str) -> Standing:
    """Reads who is champion and who was.

    An alias that was set by hand counts as the latest of the history.

    Raises:
        InputError: no such model, or a server that does not answer.
    """
    check_tracking_server()
    with _one_line(f"model {name}"):
        model = mlflow.MlflowClient().get_registered_model(name)
    champion = model.aliases.get(CHAMPION)
    champion = None if champion is None else str(champion)
    history = tuple(model.tags.get(HISTORY_TAG, "").split())
    if champion is not None and (not history or history[-1] != champion):
        history = (*history, champion)
    return Standing(champion=champion, history=history)


def find_version(name: str, version: int | None = None) -> ModelVersion:
    """A version of a model; the challenger where none is named.

    Raises:
        InputError: no such model or version, or no challenger.
    """
    check_tracking_server()
    client = mlflow.MlflowClient()
    with _one_line(f"model {name}, version {CHALLENGER if version is None else version}"):
        if version is None:
            return client.get_model_version_by_alias(name, CHALLENGER)
        return client.get_model_version(name, str(version))


def version_of_run(name: str, run_id: str) -> ModelVersion | None:
    """The newest version of a model that comes from a run; None where there is none.

    Raises:
        InputError: a server that does not answer.
    """
    check_tracking_server()
    with _one_line(f"model {name}, run {run_id}"):
        found = mlflow.MlflowClient().search_model_versions(f"name='{name}' and run_id='{run_id}'")
    return max(found, key=lambda version: int(version.version), default=None)


def was_decided(version: ModelVersion) -> bool:
    """Whether the gate has decided on a version."""
    return DECISION_TAG in version.tags


def set_champion(name: str, version: str, *, expected: Standing) -> Standing:
    """Gives a version the alias, if everything is still as it was when that was decided.

    Args:
        name: of the model.
        version: the champion to be.
        expected: what the decision is based on.

    Returns:
        Who is champion now.

    Raises:
        InputError: the champion has changed meanwhile; nothing was set. Or another promotion took the place right
            after.
    """
    return _change(name, version, history=(*expected.history, version), expected=expected)


def roll_back(name: str) -> tuple[str, str]:
    """Gives the place back to the version that was champion before.

    Returns:
        The version that had to go, and the champion now.

    Raises:
        InputError: there is no champion, or none before it, or it changes meanwhile, or the registry takes no change.
    """
    standing = read_standing(name)
    if standing.champion is None:
        raise InputError(f"model {name}: has no champion, expected one to roll back")
    if len(standing.history) < 2:
        raise InputError(
            f"model {name}: version {standing.champion} is its first champion, expected one that was champion before"
        )
    former = standing.history[-2]
    find_version(name, int(former))
    _change(name, former, history=standing.history[:-1], expected=standing, history_first=True)
    return standing.champion, former


def tag_version(name: str, version: str, tags: Mapping[str, str], *, description: str | None = None) -> None:
    """Writes tags of a version; an empty value takes a tag away. And its description, if one is given."""
    client = mlflow.MlflowClient()
    with _one_line(f"model {name}, version {version}"):
        there = client.get_model_version(name, version).tags
        for key, value in tags.items():
            if value:
                client.set_model_version_tag(name, version, key, value[:_MAX_TAG])
            elif key in there:
                client.delete_model_version_tag(name, version, key)
        if description is not None:
            client.update_model_version(name, version, description=description)


def _change(
    name: str, version: str, *, history: tuple[str, ...], expected: Standing, history_first: bool = False
) -> Standing:
    with _alone():
        found = read_standing(name)
        if found != expected:
            raise InputError(
                f"model {name}: its champion was {_named(expected)} when this was decided and is {_named(found)} "
                "now; nothing was changed, decide anew"
            )
        with _one_line(f"model {name}, version {version}"):
            if history_first:
                _write_history(name, history)
            mlflow.MlflowClient().set_registered_model_alias(name, CHAMPION, version)
        try:
            if not history_first:
                _write_history(name, history)
        except MlflowException as error:
            # it is the champion all the same, and a history without its last entry mends itself, see `read_standing`
            log.warning("model %s: its history of champions was not written (%s)", name, first_line(error))
        try:
            now = read_standing(name)
        except InputError as error:  # set it is, and to say that nothing changed would be wrong
            log.warning("model %s: version %s is set, but could not be read again (%s)", name, version, error)
            return Standing(champion=version, history=history[-_KEPT:])
    if now.champion != version:
        raise InputError(f"model {name}: another promotion made {_named(now)} the champion at the same moment")
    return now


def _write_history(name: str, history: tuple[str, ...]) -> None:
    mlflow.MlflowClient().set_registered_model_tag(name, HISTORY_TAG, " ".join(history[-_KEPT:]))


def _named(standing: Standing) -> str:
    return "none" if standing.champion is None else f"version {standing.champion}"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keeps other processes and threads of this package away, where the registry is a file."""
    path = _lock_path(mlflow.get_registry_uri())
    if path is None:
        yield
        return
    try:
        with filelock.FileLock(path, timeout=_LOCK_TIMEOUT_S):
            yield
    except filelock.Timeout as error:
        raise InputError(f"{path}: held by another promotion for more than {_LOCK_TIMEOUT_S} s") from error


def _lock_path(uri: str) -> Path | None:
    """The lock file beside a SQLite registry; None for any other."""
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    database = Path(url.database).resolve()
    return database.with_name(f"{database.name}.champion.lock")


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise InputError(f"{what}: {first_line(error)}") from error
