"""What is registered by hand is described like what a training registers."""

from pathlib import Path

import mlflow
import pytest

from kits_ml.config import RegisterSettings
from kits_ml.errors import InputError
from kits_ml.workflows.register import register
from tests.tracking.registry_cases import make_template, registry_in


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    template = make_template(tmp_path_factory.getbasetemp().parent)
    with registry_in(tmp_path_factory.mktemp("registry"), template) as client:
        yield client


def _run(**files: str) -> str:
    """A run that logged a model with some files."""
    with mlflow.start_run() as run:
        logged = mlflow.initialize_logged_model("model", source_run_id=run.info.run_id)
        mlflow.finalize_logged_model(logged.model_id, "READY")
        mlflow.log_outputs([mlflow.entities.LoggedModelOutput(logged.model_id, step=0)])
    inside = Path(logged.artifact_location.removeprefix("file://")) / "artifacts" / "model"
    inside.mkdir(parents=True)
    for name, content in files.items():
        (inside / f"{name}.md").write_text(content, encoding="utf-8")
    return run.info.run_id


@pytest.mark.parametrize(
    ("files", "description"),
    [({"MODEL_CARD_SHORT": "U-Net, 3 patients – few"}, "U-Net, 3 patients – few"), ({}, "")],
)
def test_the_card_describes_the_version(client, files, description):
    found = register(RegisterSettings(run_id=_run(**files), model_name="by-hand"))
    assert found.aliases == ("challenger",)
    assert (client.get_model_version("by-hand", found.version).description or "") == description


def test_a_run_without_a_model_is_told_in_a_line(client):
    with mlflow.start_run() as run:
        pass
    with pytest.raises(InputError, match="logged no model; expected a finished training run"):
        register(RegisterSettings(run_id=run.info.run_id))
