"""Show on validation patients which post-processing helps a model, and store what does."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from kits_ml import files
from kits_ml.config import PostprocessingSettings, TunePostprocessingSettings
from kits_ml.data import cases as case_files
from kits_ml.data import images, volumes
from kits_ml.errors import CasesFailedError, InputError, first_line
from kits_ml.evaluation import folders, selftest, subjects, tuning
from kits_ml.inference.predictor import DESCRIPTION_FILE, read_description
from kits_ml.tracking import addresses, model_card, registry, runs
from kits_ml.workers import run_cases
from kits_ml.workflows.packaging import EVALUATION_FOLDER, input_example_of
from kits_ml.workflows.segmenters import load_network

log = logging.getLogger(__name__)

#: Of the output folder: a row a round, setting, value and metric; the same for each patient; the settings to use.
EFFECTS_CSV, PATIENTS_CSV, CHOSEN_YAML = "effects.csv", "patients.csv", "postprocessing.yaml"

_EFFECT_COLUMNS = ["round", *(field.name for field in dataclasses.fields(tuning.Effect)), "helps"]
_PATIENT_COLUMNS = ["round", "option", "value", "case", *tuning.METRICS, *(f"{one}_change" for one in tuning.METRICS)]

Scores = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was found.

    Attributes:
        chosen: what was shown to help, the rest off.
        rounds: the effects of each round; the last one added nothing.
        num_cases: patients, those that failed among them.
        failures: messages by case.
        output: the folder with the tables.
        registered: the version in the registry; None where no name was given.
    """

    chosen: PostprocessingSettings
    rounds: Sequence[Sequence[tuning.Effect]]
    num_cases: int
    failures: Mapping[str, str]
    output: Path
    registered: registry.Registered | None = None


def tune_postprocessing(settings: TunePostprocessingSettings) -> Tuned:
    """Segments the validation patients, tries each setting, and keeps what helps; see `evaluation.tuning`.

    Raises:
        InputError: no validation patients among the data, an output that exists, an unknown model.
        CasesFailedError: no case could be segmented or scored.
        MetricMisreadsError: a metric in use misreads; before anything is segmented.
    """
    output = Path(settings.output)
    if (output / EFFECTS_CSV).exists() and not settings.overwrite:
        raise InputError(f"{output / EFFECTS_CSV}: exists; expected a new folder, or --overwrite true")
    models = addresses.local_folders(settings.model)
    if settings.store and (len(models) > 1 or Path(settings.store).exists()):
        raise InputError(f"store: found {settings.store}, expected a new folder, and one model")
    tested = selftest.run_selftest(subjects.metrics_in_use())
    cases = {case.name: case for case in case_files.find_cases(settings.data)}
    if settings.subset == "validation":
        cases = validation_cases(cases, [read_description(folder) for folder in models], data=settings.data)
    predictions, failures = _predictions(settings, models, cases)
    if not predictions:
        raise CasesFailedError(failures, len(cases))
    rounds, rows, chosen, failures = _search(cases, predictions, failures, num_workers=settings.num_workers)
    _write(output, rounds, rows, chosen)
    files.write_bytes(output / selftest.SELFTEST_CSV, selftest.to_csv(tested).encode())
    registered = None
    if settings.store:
        chosen_by = {name: cases[name].digest() for name in dict.fromkeys(row["case"] for row in rows)}
        store(models[0], Path(settings.store), chosen, chosen_by=chosen_by)
    if settings.model_name:
        registered = _register(settings, example_scan=next(iter(cases.values())).image_path)
    return Tuned(
        chosen=chosen,
        rounds=rounds,
        num_cases=len(cases),
        failures=failures,
        output=output,
        registered=registered,
    )


def validation_cases(
    cases: Mapping[str, case_files.Case], descriptions: Sequence[Mapping[str, Any]], *, data: str
) -> dict[str, case_files.Case]:
    """The cases that chose weights of each model, and that no weight was fitted to.

    Args:
        cases: by name.
        descriptions: of the models.
        data: where the cases are from, for the error message.

    Raises:
        InputError: there are none, or a model does not tell which they were.
    """
    wanted = [_validation_digests(one) for one in descriptions]
    digests = {
        name: case.digest() for name, case in tqdm(cases.items(), desc="look for validation cases", unit="case")
    }
    found = {name: case for name, case in cases.items() if all(digests[name] in one for one in wanted)}
    if not found:
        several = " of each model, as folds have none in common" * (len(descriptions) > 1)
        raise InputError(
            f"{data}: none of its {len(cases)} cases is a validation case{several}; expected the data that the model "
            "was trained on, or --subset all with cases that are no test patients"
        )
    log.info("%d of %d cases are validation cases", len(found), len(cases))
    return found


def store(model: Path, target: Path, chosen: PostprocessingSettings, *, chosen_by: Mapping[str, str]) -> None:
    """Copies a model and stores post-processing in its description; whole or not at all.

    Its evaluation is not copied, for it is of other label maps: the gate scores the model anew. The card says so.

    Args:
        model: its folder.
        target: a new folder.
        chosen: what `predict` will do by default.
        chosen_by: digests of the cases that showed it, by name; from now on the model has seen these files.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model, partial, ignore=shutil.ignore_patterns(EVALUATION_FOLDER))
    description = _having_seen(chosen_by, read_description(model))
    files.write_json(partial / DESCRIPTION_FILE, {**description, "postprocessing": chosen.to_dict()})
    default = PostprocessingSettings().to_dict()
    model_card.tell_cleaning(partial, {key: one for key, one in chosen.to_dict().items() if one != default[key]})
    partial.rename(target)


def _having_seen(digests: Mapping[str, str], description: Mapping[str, Any]) -> Mapping[str, Any]:
    """The description with more cases among those seen; another case of the same name keeps its own."""
    if "seen_cases" not in description:
        return description  # what is said counts as all that was seen, and here nobody knows
    seen = description["seen_cases"]
    new = {name: digest for name, digest in digests.items() if digest not in seen.values()}
    new = {f"{name} ({digest[:8]})" if name in seen else name: digest for name, digest in new.items()}
    return {**description, "seen_cases": {**seen, **new}}


def _register(settings: TunePostprocessingSettings, *, example_scan: Path) -> registry.Registered:
    """Logs the stored model with the tables to a run, and registers it as challenger; champions are the gate's."""
    input_example, spacing_mm = input_example_of(example_scan)
    with runs.run(experiment=settings.experiment, run_name="tune_postprocessing"):
        runs.log_settings(settings)
        for name in (EFFECTS_CSV, PATIENTS_CSV, CHOSEN_YAML, selftest.SELFTEST_CSV):
            mlflow.log_artifact(str(Path(settings.output) / name))
        uri = registry.log_model(Path(settings.store), input_example=input_example, spacing_mm=spacing_mm)
        return registry.register(uri, settings.model_name, description=model_card.read_short(Path(settings.store)))


def _validation_digests(description: Mapping[str, Any]) -> set[str]:
    names, run_id = description.get("validation_cases"), description.get("run_id")
    if names is None and run_id:  # of before the description said so
        try:
            names = mlflow.artifacts.load_dict(f"runs:/{run_id}/split.json")["validation"]
        except (MlflowException, OSError, KeyError) as error:
            log.info("run %s: no split.json (%s)", run_id, first_line(error))
    if names is None:
        raise InputError(
            "model: does not tell its validation cases, nor does its run; expected a model that was trained here, or "
            "--subset all with cases that are no test patients"
        )
    seen = description.get("seen_cases", {})
    return {seen[name] for name in names if name in seen}


def _predictions(
    settings: TunePostprocessingSettings, models: tuple[Path, ...], cases: Mapping[str, case_files.Case]
) -> tuple[dict[str, Path], dict[str, str]]:
    """A label map a case, as the network leaves it; and the messages of those that failed."""
    if settings.predictions:
        there = folders.find_label_maps(settings.predictions)
        found = {name: there[name] for name in cases if name in there}
        failures = {name: f"{settings.predictions}: no label map of it" for name in cases if name not in there}
        for name, message in failures.items():
            tqdm.write(f"{name}: {message}")
        return found, failures
    network = load_network(models, settings)
    found, failures = {}, {}
    for name, case in tqdm(cases.items(), desc="segment", unit="case"):
        path = Path(settings.output) / "predictions" / f"{name}.nii.gz"
        try:
            image = images.read_image(case.image_path)
            label_map = network.segment(image.array, spacing_mm=image.spacing_mm)
        except InputError as error:
            failures[name] = str(error)
            tqdm.write(f"{name}: {error}")
            continue
        volumes.write_label_map(path, label_map, image.geometry)
        found[name] = path
    return found, failures


def _search(
    cases: Mapping[str, case_files.Case],
    predictions: Mapping[str, Path],
    failures: Mapping[str, str],
    *,
    num_workers: int,
) -> tuple[list[list[tuning.Effect]], list[dict[str, Any]], PostprocessingSettings, dict[str, str]]:
    """Rounds until nothing helps: their effects, rows of `PATIENTS_CSV`, what was chosen, and all who failed."""
    current, rounds, rows, failures = PostprocessingSettings(), [], [], dict(failures)
    before: dict[str, Scores] = {}
    while tried := tuning.candidates(current):
        wanted = tried if before else [current, *tried]
        names = [name for name in predictions if name not in failures]
        tasks = {name: {"case": cases[name], "prediction": predictions[name], "settings": wanted} for name in names}
        scores, failed = run_cases(
            tuning.score_with, tasks, num_workers=num_workers, description=f"round {len(rounds) + 1}"
        )
        failures |= failed
        if not scores:
            raise CasesFailedError(failures, len(cases))
        if not before:
            before = {name: one[0] for name, one in scores.items()}
            scores = {name: one[1:] for name, one in scores.items()}
        by_candidate = [[scores[name][index] for name in scores] for index in range(len(tried))]
        options = [tuning.changed_option(current, one) for one in tried]
        rounds.append(tuning.effects([before[name] for name in scores], by_candidate, options))
        rows += _patient_rows(len(rounds), options, before, scores)
        best = tuning.best_of(rounds[-1])
        if best is None:
            break
        index = options.index((best.option, best.value))
        current, before = tried[index], {name: one[index] for name, one in scores.items()}
    return rounds, rows, current, failures


def _patient_rows(
    number: int,
    options: Sequence[tuple[str, Any]],
    before: Mapping[str, Scores],
    scores: Mapping[str, Sequence[Scores]],
) -> list[dict[str, Any]]:
    return [
        {
            **{"round": number, "option": option, "value": value, "case": name},
            **after[index],
            **{f"{metric}_change": after[index][metric] - before[name][metric] for metric in tuning.METRICS},
        }
        for index, (option, value) in enumerate(options)
        for name, after in scores.items()
    ]


def _write(
    output: Path,
    rounds: Sequence[Sequence[tuning.Effect]],
    rows: Sequence[Mapping[str, Any]],
    chosen: PostprocessingSettings,
) -> None:
    effects = [
        {"round": number, **_without_nan(dataclasses.asdict(one)), "helps": str(one.helps).lower()}
        for number, found in enumerate(rounds, start=1)
        for one in found
    ]
    files.write_csv(output / PATIENTS_CSV, rows, _PATIENT_COLUMNS)
    files.write_bytes(output / CHOSEN_YAML, yaml.safe_dump({"postprocessing": "given", **chosen.to_dict()}).encode())
    files.write_csv(output / EFFECTS_CSV, effects, _EFFECT_COLUMNS)


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """An interval of one patient is an empty cell."""
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
