"""Models by their addresses: the folder behind one, the version behind an alias.

MLflow is imported where an address asks it; a folder needs none, and predicting from one starts the sooner.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kits_ml.errors import InputError, first_line
from kits_ml.tracking import model_cache

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel


def local_folder(model: str) -> Path:
    """The folder with `model.keras` and `model.json` of a model, fetched where it is remote.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID/model`, or a folder: MLflow's or ours.

    Raises:
        InputError: no such model, version or alias, or a server that does not answer.
    """
    folder = mlflow_folder(model)
    inside = folder / "artifacts" / "model"
    return inside if inside.is_dir() else folder


def local_folders(model: str) -> tuple[Path, ...]:
    """The folder of each model of one address or of several, divided by commas; see `local_folder`."""
    return tuple(local_folder(address) for address in split_addresses(model))


def split_addresses(model: str) -> list[str]:
    """The addresses of one or several models.

    Raises:
        InputError: an empty one, or one that is there twice.
    """
    found = [one.strip() for one in model.split(",")]
    if not all(found):
        raise InputError(f"model: found {model!r}, expected addresses divided by single commas")
    twice = {one for one in found if found.count(one) > 1}
    if twice:
        raise InputError(f"model: found {', '.join(sorted(twice))} more than once, expected each model once")
    return found


def mlflow_folder(model: str) -> Path:
    """The folder that MLflow keeps a model in, with its `MLmodel`, fetched where it is remote.

    A local store's own folder is given, to be read only. What a remote store has is kept, see `model_cache`.

    Args:
        model: as for `local_folder`.

    Raises:
        InputError: as `local_folder`.
    """
    if ":/" not in model:
        folder = Path(model)
        if not folder.is_dir():
            raise InputError(
                f"{model}: no such folder; expected models:/NAME@ALIAS, models:/NAME/VERSION or a folder"
            )
        return folder
    from mlflow.exceptions import MlflowException

    from kits_ml.tracking.runs import check_tracking_server

    check_tracking_server()
    try:
        return _fetched(model)
    except (MlflowException, OSError) as error:
        raise InputError(f"model {model}: not found ({first_line(error)})") from error


def _fetched(address: str) -> Path:
    import mlflow
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    if address.startswith("runs:/"):
        address = _model_of_run(address) or address  # MLflow copies what it finds by a run, from a local store too
    # the version's own place, not the alias, which may move before it is fetched
    is_model = address.startswith("models:/")
    place = ModelsArtifactRepository.get_underlying_uri(address) if is_model else address
    if _is_local(place):
        return Path(mlflow.artifacts.download_artifacts(place))

    def download(folder: Path) -> Path:
        return Path(mlflow.artifacts.download_artifacts(place, dst_path=str(folder)))

    if not is_model:
        return model_cache.fetch_for_now(download)
    server = mlflow.get_registry_uri()
    return model_cache.fetch(hashlib.sha256(f"{server}\n{place}".encode()).hexdigest()[:32], download)


def _model_of_run(address: str) -> str | None:
    """`models:/ID` of the model that a run logged last under a name; None where that names something else."""
    run_id, _, name = address.removeprefix("runs:/").partition("/")
    named = [one for one in logged_by(run_id) if one.name == name]
    return f"models:/{named[-1].model_id}" if named else None


def logged_by(run_id: str) -> list[LoggedModel]:
    """The models that a run logged, the last one last."""
    import mlflow

    outputs, client = mlflow.get_run(run_id).outputs, mlflow.MlflowClient()
    models = [client.get_logged_model(one.model_id) for one in (outputs.model_outputs if outputs else [])]
    return sorted(models, key=lambda one: one.creation_timestamp)  # the store tells them in no order


def _is_local(uri: str) -> bool:
    scheme = urlsplit(uri).scheme
    return scheme == "file" or len(scheme) < 2  # a path, or one that begins with a drive's letter


def pinned(model: str) -> str:
    """The address of the version behind an alias now: `models:/NAME@ALIAS` gives `models:/NAME/VERSION`.

    Args:
        model: as for `local_folder`; what is no alias comes back as it is.

    Raises:
        InputError: no such model or alias, or a server that does not answer.
    """
    if not model.startswith("models:/") or "@" not in model:
        return model
    import mlflow
    from mlflow.exceptions import MlflowException

    from kits_ml.tracking.runs import check_tracking_server

    check_tracking_server()
    name, alias = model.removeprefix("models:/").rsplit("@", 1)
    try:
        return f"models:/{name}/{mlflow.MlflowClient().get_model_version_by_alias(name, alias).version}"
    except MlflowException as error:
        raise InputError(f"model {model}: not found ({first_line(error)})") from error
