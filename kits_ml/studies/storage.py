"""Where trials are kept: Optuna's storages, and what is lost with each of them."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext, make_url

from kits_ml.config import StudySettings
from kits_ml.errors import InputError, first_line

log = logging.getLogger(__name__)

#: How long a database gets to answer, and how long SQLite waits for another worker's write.
CONNECT_TIMEOUT_S = 10
SQLITE_TIMEOUT_S = 120

#: How long, and how often, something is tried with a storage that fails: a full disk, a database started again.
PATIENCE_S, PAUSE_S = 600.0, 5.0

#: Optuna's table of signs of life.
_HEARTBEATS = sqlalchemy.table("trial_heartbeats", sqlalchemy.column("trial_id"))

#: What a stale trial is followed by: called with the study and the trial.
OnStale = Callable[[optuna.Study, FrozenTrial], None]


@contextlib.contextmanager
def opened_storage(settings: StudySettings) -> Iterator[BaseStorage]:
    """The storage, while it is needed; leaves the telling to us, and makes a line of what it says in between.

    Raises:
        InputError: it cannot be opened, or does not answer any more.
    """
    storage = open_storage(settings)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield storage
    except optuna.exceptions.StorageInternalError as error:
        raise InputError(
            f"storage: does not answer any more ({first_line(error)}); `study resume` goes on"
        ) from error
    finally:
        optuna.logging.set_verbosity(before)
        close_storage(storage)


def would_be_made(settings: StudySettings) -> bool:
    """Whether the storage is a file that is not there yet: opening it would make one."""
    path = settings.storage if settings.storage_class == "JournalFileBackend" else None
    if settings.storage_class == "RDBStorage":
        with contextlib.suppress(sqlalchemy.exc.ArgumentError):  # `open_storage` tells of it
            url = make_url(settings.storage)
            path = url.database if url.get_backend_name() == "sqlite" else None
    if not path or path.startswith("file:"):
        return False
    return Path(path).parent.is_dir() and not Path(path).exists()


def open_storage(settings: StudySettings, *, on_stale: OnStale | None = None) -> BaseStorage:
    """Opens the storage that the settings name.

    Args:
        settings: `storage`, `storage_class`, heartbeats.
        on_stale: called for a trial that gave no sign of life, after it was marked as failed and put back once.

    Raises:
        InputError: an address that cannot be read, a driver that is missing, a storage that does not answer.
    """
    if settings.storage_class == "RDBStorage":
        return _open_database(settings, on_stale)
    log.warning(
        "%s has no heartbeat: a trial whose worker is killed stays running and is not tried again, and several "
        "workers may go beyond the budget by one trial each; RDBStorage (SQLite, PostgreSQL) has neither flaw",
        settings.storage_class,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _OTHERS[settings.storage_class](settings.storage)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"storage {settings.storage}: cannot be opened ({first_line(error)})") from error


def close_storage(storage: BaseStorage) -> None:
    """Gives a database's or a proxy's connections back."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    elif isinstance(storage, optuna.storages.GrpcStorageProxy):
        storage.close()


def has_heartbeat(storage: BaseStorage) -> bool:
    """Whether the storage notices killed workers."""
    return isinstance(getattr(storage, "_backend", storage), RDBStorage)


def give_up_silent(study: optuna.Study) -> None:
    """Fails the trials whose workers give no sign of life, and puts them back once; nothing without heartbeats.

    Optuna passes over a trial whose worker was killed before its first sign of life. It gets one in its place here,
    and is given up when that has become old.

    Raises:
        optuna.exceptions.StorageInternalError: the storage does not answer.
    """
    storage = getattr(study._storage, "_backend", study._storage)
    if not isinstance(storage, RDBStorage):
        return
    running = [trial._trial_id for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
    if running:
        query = sqlalchemy.select(_HEARTBEATS.c.trial_id).where(_HEARTBEATS.c.trial_id.in_(running))
        try:
            with storage.engine.connect() as connection:
                beating = set(connection.execute(query).scalars())
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise optuna.exceptions.StorageInternalError("signs of life cannot be read") from error
        for trial_id in running:
            if trial_id not in beating:
                storage.record_heartbeat(trial_id)
    optuna.storages.fail_stale_trials(study)


def patiently(action: Callable[[], Any]) -> Any:
    """Does something with the storage, and again where the storage fails, so that no training is lost by that.

    Raises:
        optuna.exceptions.StorageInternalError: it failed for `PATIENCE_S`.
    """
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            return action()
        except optuna.exceptions.StorageInternalError as error:
            if time.monotonic() >= ends:
                raise
            log.warning("the storage does not answer (%s); trying again", cause_of(error))
            time.sleep(PAUSE_S)


def shown(storage: str) -> str:
    """The address without its password."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return storage


class Database(RDBStorage):
    """Optuna's database, which may be away for a while without harm to trials.

    - A sign of life that it cannot take is one that is missing, and not the last: Optuna's thread ends with the first
      that fails, and others would give the trial up once the disk has room again.
    - While it was away nobody could give a sign of life: no trial is given up before all have had time for one.
    - How a trial ended is told patiently, as Optuna asks for that once.
    """

    def __init__(self, *args: Any, **options: Any):
        self.failed_s = -math.inf  # when it last did, on the clock that only goes forward
        super().__init__(*args, **options)
        event.listen(self.engine, "handle_error", self._note_failure)

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            super().record_heartbeat(trial_id)
        except optuna.exceptions.StorageInternalError as error:
            log.warning("the storage does not take a sign of life (%s)", cause_of(error))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        ask = super().get_trial
        return patiently(lambda: ask(trial_id))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        tell = super().set_trial_state_values
        return patiently(lambda: tell(trial_id, state, values))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        # a try of ours after it came back, a try of theirs, and a connection that had to be given up in between
        quiet_s = 2 * self.heartbeat_interval + CONNECT_TIMEOUT_S
        return [] if time.monotonic() < self.failed_s + quiet_s else super()._get_stale_trial_ids(study_id)

    def _note_failure(self, context: ExceptionContext) -> None:
        if isinstance(context.sqlalchemy_exception, sqlalchemy.exc.OperationalError):
            self.failed_s = time.monotonic()


class RetryOnce:
    """Puts a trial back once whose worker was killed, then tells of it.

    Args:
        then: told of each such trial.
    """

    def __init__(self, then: OnStale | None = None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1)
        self.then = then

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        log.warning("%s: trial %d gave no sign of life and is given up", study.study_name, trial.number)
        self.retry(study, trial)
        if self.then:
            self.then(study, trial)


def _open_database(settings: StudySettings, on_stale: OnStale | None) -> RDBStorage:
    address = shown(settings.storage)
    try:
        url = make_url(settings.storage)
        options: dict[str, Any] = {"pool_pre_ping": True}
        if url.get_backend_name() == "sqlite":
            options = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}}
        elif url.get_backend_name() == "postgresql":
            options["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT_S}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return Database(
                settings.storage,
                engine_kwargs=options,
                heartbeat_interval=settings.heartbeat_s,
                grace_period=settings.grace_s,
                heartbeat_stale_trial_callback=RetryOnce(on_stale),
            )
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise InputError(
            f"storage {address}: no database that is known; expected sqlite:/// or postgresql://"
        ) from error
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(f"storage {address}: no URL; expected such as sqlite:///optuna.db") from error
    except ImportError as error:
        raise InputError(
            f"storage {address}: its driver is missing ({first_line(error)}); pip install psycopg"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        raise InputError(f"storage {address}: does not answer ({cause_of(error)})") from error


def cause_of(error: BaseException) -> str:
    """What the database said, in a line."""
    original = getattr(error, "orig", None) or error.__cause__ or error
    return first_line(getattr(original, "orig", None) or original)


def _journal_file(path: str) -> BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))


def _journal_redis(url: str) -> BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalRedisBackend(url))


def _grpc(address: str) -> BaseStorage:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ValueError("expected host:port")
    proxy = optuna.storages.GrpcStorageProxy(host=host or "localhost", port=int(port))
    proxy.wait_server_ready(timeout=CONNECT_TIMEOUT_S)
    return proxy


_OTHERS = {
    "JournalFileBackend": _journal_file,
    "JournalRedisBackend": _journal_redis,
    "GrpcStorageProxy": _grpc,
}
