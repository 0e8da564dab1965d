"""Optuna's plots of a study, drawn with matplotlib."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn

from kits_ml import figures
from kits_ml.errors import first_line
from kits_ml.studies.curves import tuning_figure
from kits_ml.studies.search import minutes_of
from kits_ml.studies.spec import StudySpec

log = logging.getLogger(__name__)


def write_plots(folder: Path, studies: Mapping[str, optuna.Study], spec: StudySpec) -> list[Path]:
    """Draws what the trials allow, a folder an architecture.

    Args:
        folder: gets `<architecture>/<plot>.png`.
        studies: by architecture.
        spec: the study.

    Returns:
        The files. A plot that Optuna cannot draw from these trials (too few, all alike) is left out.
    """
    written = []
    for name, study in studies.items():
        complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
        if not complete:
            continue
        for plot, draw in _plots(study, spec, num_complete=len(complete)).items():
            path = folder / name / f"{plot}.png"
            # Optuna gives the whole process a style of its own, and writes names beside the figure
            with plt.rc_context({"savefig.bbox": "tight"}):
                if _write(path, draw, title=f"{name}, {plot.replace('_', ' ')}"):
                    written.append(path)
    return written


def write_tuning_curves(folder: Path, studies: Mapping[str, optuna.Study], spec: StudySpec) -> Path:
    """Draws `tuning_curves.png`: all architectures, pruned trials with the best score that they reached."""
    scores: dict[str, list[float]] = {}
    minutes: dict[str, float] = {}
    for name, study in studies.items():
        found = [(_reached(trial, spec), minutes_of(trial)) for trial in study.get_trials(deepcopy=False)]
        found = [(score, spent) for score, spent in found if score is not None]
        scores[name] = [score for score, _ in found]
        minutes[name] = float(np.mean([spent for _, spent in found])) if found else 0.0
    figures.save_figure(
        folder / "tuning_curves.png", tuning_figure(scores, score_name=spec.objectives[0], minutes=minutes)
    )
    return folder / "tuning_curves.png"


def _reached(trial: optuna.trial.FrozenTrial, spec: StudySpec) -> float | None:
    """The score; of a pruned trial the mean over its folds of the best epoch; None where there is none."""
    if trial.state == TrialState.COMPLETE:
        return trial.values[0]
    if trial.state != TrialState.PRUNED:
        return None
    best: dict[float, float] = {}
    for row in trial.user_attrs.get("curve", ()):
        best[row["fold"]] = max(best.get(row["fold"], -np.inf), row[spec.objectives[0]])
    return float(np.mean(list(best.values()))) if best else None


def _plots(study: optuna.Study, spec: StudySpec, *, num_complete: int) -> dict[str, Callable[[], Any]]:
    score = spec.objectives[0]
    several = {"target": lambda trial: trial.values[0]} if len(spec.objectives) > 1 else {}
    named = {"target_name": score, **several}
    plots: dict[str, Callable[[], Any]] = {
        "history": lambda: drawn.plot_optimization_history(study, **named),
        "slices": lambda: drawn.plot_slice(study, **named),
    }
    if num_complete > 1:
        plots["parallel_coordinates"] = lambda: _parallel_coordinates(study, **named)
        plots["importances"] = lambda: drawn.plot_param_importances(study, **named)
    if several:
        if len(spec.objectives) <= 3:
            plots["pareto_front"] = lambda: drawn.plot_pareto_front(study, target_names=list(spec.objectives))
    else:
        plots["intermediate_values"] = lambda: drawn.plot_intermediate_values(study)
    return plots


def _parallel_coordinates(study: optuna.Study, **named: Any) -> Axes:
    """Optuna's, with the colours' bar beside the values of the last setting instead of on them."""
    plot = drawn.plot_parallel_coordinate(study, **named)
    for axes in plot.figure.axes:
        if axes.get_label() == "<colorbar>":
            left, bottom, width, height = axes.get_position().bounds
            axes.set_position((left + 0.25, bottom, width, height))
    return plot


def _write(path: Path, draw: Callable[[], Any], *, title: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these plots are marked experimental, and matplotlib's layout complains
            figures.save_figure(path, _legible(np.ravel(draw()), title=title))
        return True
    except Exception as error:  # of Optuna's or matplotlib's: a picture is not worth a report
        log.info("%s: not drawn (%s)", path.name, first_line(error))
        return False
    finally:
        plt.close("all")


def _legible(plots: Sequence[Axes], *, title: str) -> Figure:
    """Their figure, with one title instead of Optuna's and ours, and room for values below plots side by side."""
    figure = plots[0].figure
    figure.suptitle(title)
    for axes in plots:
        for where in ("left", "center"):
            axes.set_title("", loc=where)
        if len(plots) > 1:
            axes.tick_params(axis="x", which="both", labelrotation=60)
    return figure
