"""Models by their addresses: the folder behind one, the version behind an alias.

MLflow is imported where an address asks it; a folder needs none, and predicting from one starts the sooner.
"""

from __future__ import annotations

from pathlib import Path

from kits_ml.errors import InputError, first_line


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
    import mlflow
    from mlflow.exceptions import MlflowException

    from kits_ml.tracking.runs import check_tracking_server

    check_tracking_server()
    try:
        return Path(mlflow.artifacts.download_artifacts(model))
    except (MlflowException, OSError) as error:
        raise InputError(f"model {model}: not found ({first_line(error)})") from error


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


def version_of(model: str) -> str | None:
    """The version behind a registered model's address, such as `"kits-unet, version 3"`; None for anything else.

    Args:
        model: as for `local_folder`.
    """
    if not model.startswith("models:/"):
        return None
    name, _, version = pinned(model).removeprefix("models:/").rpartition("/")
    return f"{name}, version {version}" if name else None
