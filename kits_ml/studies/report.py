"""The page of a study: one HTML file with what was searched, what was found, and what that is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kits_ml import files, page
from kits_ml.studies import results, search
from kits_ml.studies.compared import outdated
from kits_ml.studies.spec import StudySpec
from kits_ml.workflows.compare import Compared, draw, page_parts

STUDY_HTML = "study.html"

#: Captions of the plots, by the name of the file.
_CAPTIONS = {
    "history": "The score of each trial, and the best until then.",
    "intermediate_values": "The score of each trial while it trained; a line that ends early was pruned.",
    "importances": "How much of the scores' variance each setting explains (fANOVA), in these trials.",
    "parallel_coordinates": "One line a trial: its settings and its score.",
    "slices": "Score against each setting by itself.",
    "tuning_curves": "The best score that so many trials, or minutes at the mean time of an architecture's trials, "
    "may be expected to find (Dodge 2019): exact for a random search; failed trials are left out. A curve that still "
    "rises says that the budget was short.",
    "pareto_front": "Quality against cost; the front holds the trials that no other beats in both.",
}


def write_page(
    folder: Path,
    studies: Mapping[str, optuna.Study],
    spec: StudySpec,
    *,
    pictures: Sequence[Path],
    compared: Compared | None = None,
) -> Path:
    """Writes `study.html`, which needs no other file and no network.

    Args:
        folder: of the study.
        studies: by architecture; at least one has a complete trial.
        spec: what the study's file says.
        pictures: PNG files in the order they are shown; the name of a picture's folder is its architecture, but for
            `tuning_curves.png`.
        compared: the comparison of the confirming trainings, once there is one: it gives the answer then.
    """
    best = results.best_trials(studies)
    progress = {name: search.progress(study) for name, study in studies.items()}
    html = page.render(
        title=f"Study {spec.search.name}",
        subtitle=_subtitle(studies, spec, compared),
        verdict=compared.verdict.headline if compared else _headline(best, spec),
        sentences=[
            *(compared.verdict.contrasts.values() if compared else ()),
            *(_sentence(name, progress[name], best.get(name), spec) for name in studies),
        ],
        caveats=[
            *((*_outdated(folder, best), *compared.verdict.caveats) if compared else ()),
            *_caveats(progress, spec),
        ],
        parts=[
            *(_confirmed(compared) if compared else ()),
            *(_architectures(progress, best, spec), _configurations(best), *_reasons(studies), *_pictures(pictures)),
        ],
        settings=page.Table(title="Settings", header=("setting", "value"), rows=_flat(spec.document)),
    )
    files.write_bytes(folder / STUDY_HTML, html.encode())
    return folder / STUDY_HTML


def _subtitle(studies: Mapping[str, optuna.Study], spec: StudySpec, compared: Compared | None) -> str:
    searched = f"{len(studies)} architectures, searched by {', '.join(spec.objectives)} of validation patients; "
    if compared is None:
        return searched + "test patients were not looked at"
    plan = compared.comparison.plan
    return searched + (
        f"the best of each trained anew and compared on {compared.comparison.num_cases} test patients, whom the "
        f"search never saw: margin of equivalence {plan.equivalence_margin:g}, alpha {plan.alpha:g}, test {plan.test}"
    )


def _confirmed(compared: Compared) -> list[page.Text | page.Table | page.Picture]:
    """What the confirming trainings showed, before what the search found."""
    runs = ", ".join(f"{name} {number}" for name, number in compared.aligned.num_replicates.items())
    about = f"Test patients, scores averaged over trainings first ({runs}); folds and seeds are the trainings."
    return [
        page.Text(title="Confirmed", paragraphs=[about]),
        *page_parts(compared, draw(compared)),
        page.Text(title="Searched", paragraphs=["What follows is of validation patients, and of trials alone."]),
    ]


def _outdated(folder: Path, best: Mapping[str, FrozenTrial]) -> list[str]:
    names = outdated(folder, best)
    if not names:
        return []
    return [
        f"The search went on after the comparison: the best of {', '.join(names)} is another now, and not confirmed."
    ]


def _headline(best: Mapping[str, FrozenTrial], spec: StudySpec) -> str:
    name, trial = next(iter(best.items()))
    return (
        f"The highest {spec.objectives[0]}, {trial.values[0]:.4f}, is trial {trial.number} of {name}. Whether it is "
        "better than the others is not for a search to say: `kits-ml study confirm` and `compare` are for that."
    )


def _sentence(name: str, one: search.Progress, trial: FrozenTrial | None, spec: StudySpec) -> str:
    ended = f"{one.complete} complete, {one.pruned} pruned, {one.failed} failed, {one.lost} lost"
    found = f"best {spec.objectives[0]} {trial.values[0]:.4f}" if trial else "no complete trial"
    return f"{name}: {found}; trials: {ended}; {one.minutes:.1f} minutes of training."


def _caveats(progress: Mapping[str, search.Progress], spec: StudySpec) -> list[str]:
    found = [
        "The best of many trials looks better than it is: its score is of the patients that chose it.",
        "Tuning curves and importances tell of these trials and this search space, and of no other.",
    ]
    finished = {one.finished for one in progress.values()}
    if len(finished) > 1 and spec.search.trials is not None:
        found.append(f"The budget is not spent alike yet: {min(finished)} to {max(finished)} finished trials.")
    return found


def _architectures(
    progress: Mapping[str, search.Progress], best: Mapping[str, FrozenTrial], spec: StudySpec
) -> page.Table:
    header = ("architecture", f"best {spec.objectives[0]}", "trial", "finished", "minutes", "parameters", "GFLOPs")
    rows = []
    for name in sorted(progress, key=lambda name: list(best).index(name) if name in best else len(best)):
        trial = best.get(name)
        cells = ["", "", str(progress[name].finished), f"{progress[name].minutes:.1f}", "", ""]
        if trial:
            cells[:2] = f"{trial.values[0]:.4f}", str(trial.number)
            cells[4:] = (_number(trial.user_attrs.get(cost)) for cost in ("num_parameters", "gflops"))
        rows.append((name, *cells))
    return page.Table(
        title="Architectures", header=header, rows=rows, note="Parameters and GFLOPs of the best trial's network."
    )


def _configurations(best: Mapping[str, FrozenTrial]) -> page.Table:
    """The best trial of each architecture: a row a setting."""
    names = list(dict.fromkeys(name for trial in best.values() for name in trial.params))
    rows = [(name, *(_number(trial.params.get(name)) for trial in best.values())) for name in names]
    return page.Table(
        title="Best configurations",
        header=("setting", *best),
        rows=rows,
        note="The whole configurations are best/<architecture>.yaml, for `kits-ml train --config`.",
    )


def _reasons(studies: Mapping[str, optuna.Study]) -> list[page.Table]:
    """Why trials did not complete, with how often; nothing where all did."""
    counts = Counter(
        (name, trial.state.name.lower(), search.reason(trial).partition(": val_")[0])  # without the score
        for name, study in studies.items()
        for trial in results.ended_trials(study)
        if trial.state != TrialState.COMPLETE
    )
    if not counts:
        return []
    rows = [(name, state, reason, str(count)) for (name, state, reason), count in sorted(counts.items())]
    return [
        page.Table(title="Trials that ended early", header=("architecture", "state", "reason", "trials"), rows=rows)
    ]


def _pictures(paths: Sequence[Path]) -> list[page.Picture]:
    found = []
    for path in paths:
        plot = path.stem.replace("_", " ")
        title = "Tuning curves" if path.stem == "tuning_curves" else f"{path.parent.name}: {plot}"
        found.append(
            page.Picture(
                title=title, image=path.read_bytes(), caption=_CAPTIONS[path.stem], alt=title, media_type="image/png"
            )
        )
    return found


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`{"base": {"epochs": 3}}` -> `[("base.epochs", "3")]`."""
    rows = []
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", str(value)))
    return rows
