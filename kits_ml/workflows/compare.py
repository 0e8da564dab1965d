"""Compare algorithms on the same patients: tables or runs in, a folder with a page out."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kits_ml import comparison_figures, figures, files, page
from kits_ml.config import CompareSettings
from kits_ml.errors import InputError
from kits_ml.evaluation.comparison import report
from kits_ml.evaluation.comparison.alignment import AlignedScores, align
from kits_ml.evaluation.comparison.analysis import Comparison, Plan, compare
from kits_ml.evaluation.comparison.costs import Cost, mean_cost, read_costs
from kits_ml.evaluation.comparison.reading import Record, is_lower_better, read_records
from kits_ml.evaluation.comparison.verdict import Verdict, judge, shown
from kits_ml.evaluation.tables import SCORES_CSV

log = logging.getLogger(__name__)

COMPARISON_JSON = "comparison.json"
COMPARISON_HTML = "comparison.html"
RUNS = "runs:/"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A finished comparison.

    Attributes:
        comparison: all numbers.
        verdict: all words.
        aligned: the scores that were compared.
        label: what a reader calls the score.
        costs: what is known of the cost, by algorithm.
        output: the folder with the page, the tables and the pictures.
    """

    comparison: Comparison
    verdict: Verdict
    aligned: AlignedScores
    label: str
    costs: dict[str, Cost]
    output: Path


def run_comparison(settings: CompareSettings) -> Compared:
    """Runs the comparison that the settings ask for.

    Raises:
        InputError: scores that cannot be read or do not fit together, no control, an output that exists.
    """
    path = Path(settings.output) / COMPARISON_JSON
    if path.exists() and not settings.overwrite:
        raise InputError(f"{path}: exists; expected a new folder, or --overwrite true")
    given_costs = read_costs(settings.costs) if settings.costs else {}
    records, run_costs = read_scores(settings)
    return compare_records(records, settings, run_costs=run_costs, given_costs=given_costs)


def compare_records(
    records: Sequence[Record],
    settings: CompareSettings,
    *,
    run_costs: Mapping[str, Sequence[Cost]],
    given_costs: Mapping[str, Cost],
) -> Compared:
    """Compares scores that were read, and writes what is found, over what is there.

    Args:
        records: all scores of all algorithms.
        settings: of the comparison; `scores` and `costs` are only noted.
        run_costs: of each run, by algorithm.
        given_costs: by algorithm; come first.

    Raises:
        InputError: scores that do not fit together, no control.
    """
    aligned = align(records, control=settings.control, on_mismatch=settings.on_mismatch)
    costs = _join_costs(run_costs, given_costs, aligned.algorithms)
    comparison = compare(aligned.scores, algorithms=aligned.algorithms, plan=_plan(settings))
    label = _label(settings, {record.region for record in records})
    verdict = judge(comparison, metric=label, aligned=aligned)
    compared = Compared(
        comparison=comparison,
        verdict=verdict,
        aligned=aligned,
        label=label,
        costs=costs,
        output=Path(settings.output),
    )
    _write(compared, settings)
    return compared


def read_scores(settings: CompareSettings) -> tuple[list[Record], dict[str, list[Cost]]]:
    """Reads all that `scores` names: the records, and the costs of runs by algorithm."""
    sources = [source for source in re.split(r"[,\s]+", settings.scores) if source]
    if not sources:
        raise InputError("scores: found nothing, expected NAME=scores.csv, runs:/ID or a table")
    twice = sorted({source for source in sources if sources.count(source) > 1})
    if twice:
        raise InputError(f"scores: found {', '.join(twice)} more than once; expected each once")
    records: list[Record] = []
    costs: dict[str, list[Cost]] = {}
    options = {"region": settings.region, "metric": settings.metric}
    with contextlib.ExitStack() as stack:
        for number, source in enumerate(sources, 1):
            name, place = _split(source)
            if not place.startswith(RUNS):
                path = Path(place) / SCORES_CSV if Path(place).is_dir() else Path(place)
                records += read_records(path, name=name, replicate=f"table {number}", **options)
                continue
            from kits_ml.tracking.run_scores import fetch_scores  # MLflow only where a run is asked for

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            runs = fetch_scores(place, part=settings.part, folder=folder)
            architectures = {run.architecture: None for run in runs}
            if name and len(architectures) > 1:
                raise InputError(
                    f"scores: {source}: found runs of {', '.join(map(str, architectures))}, expected one algorithm's "
                    f"for a name, or {place} alone"
                )
            for run in runs:
                algorithm = name or run.algorithm
                costs.setdefault(algorithm, []).append(run.cost)
                records += read_records(
                    run.path, name=algorithm, replicate=f"run {run.run_id}", source=f"{RUNS}{run.run_id}", **options
                )
    return records, costs


def _split(source: str) -> tuple[str | None, str]:
    """`NAME=PLACE`, or a place alone."""
    name, equals, place = source.partition("=")
    if not equals:
        return None, source
    if not name or not place:
        raise InputError(f"scores: found {source!r}, expected NAME=scores.csv or NAME=runs:/ID")
    return name, place


def _join_costs(
    run_costs: Mapping[str, Sequence[Cost]], given: Mapping[str, Cost], algorithms: Sequence[str]
) -> dict[str, Cost]:
    unknown = sorted(set(given) - set(algorithms))
    if unknown:
        log.info("costs of %s are left out: not among the algorithms", ", ".join(unknown))
    costs = {**{name: mean_cost(found) for name, found in run_costs.items()}, **given}
    return {name: costs[name] for name in algorithms if name in costs}


def _plan(settings: CompareSettings) -> Plan:
    better = settings.better or ("lower" if is_lower_better(settings.metric) else "higher")
    return Plan(
        equivalence_margin=settings.equivalence_margin,
        higher_is_better=better == "higher",
        test=settings.test,
        confidence=settings.confidence,
        power=settings.power,
        num_bootstrap=settings.num_bootstrap,
        seed=settings.seed,
    )


def _label(settings: CompareSettings, regions: Set[str]) -> str:
    """What a reader calls the score; tables that name no region get none."""
    names = {"dice": "Dice", "iou": "IoU", "surface_dice": "surface Dice", "hd95_mm": "HD95 (mm)"}
    name = names.get(settings.metric, settings.metric.replace("_mm", " (mm)").replace("_", " "))
    if settings.region not in regions:
        return name
    return f"mean {name} of kidney and tumour" if settings.region == "both" else f"{settings.region} {name}"


def _write(compared: Compared, settings: CompareSettings) -> None:
    comparison, aligned, output = compared.comparison, compared.aligned, compared.output
    tables = {
        "algorithms": report.algorithm_rows(comparison, aligned, compared.costs),
        "against_control": report.contrast_rows(comparison),
        "pairs": report.pair_rows(comparison),
        "rank_distribution": report.rank_rows(comparison),
        "cases": report.case_rows(aligned),
    }
    for name, rows in tables.items():
        files.write_csv(output / f"{name}.csv", rows, list(rows[0]))
    pictures = draw(compared)
    for name, (figure, _) in pictures.items():
        figures.save_figure(output / f"{name}.png", figure, dpi=200)
    files.write_bytes(output / COMPARISON_HTML, _page(compared, pictures, settings).encode())
    content = report.to_dict(comparison, compared.verdict, aligned)
    files.write_json(output / COMPARISON_JSON, {"settings": settings.to_dict(), **content})


def draw(compared: Compared) -> dict[str, tuple[Figure, str]]:
    """All pictures by name, each with its caption."""
    return _draw_against_control(compared) | _draw_over_all(compared)


def _draw_against_control(compared: Compared) -> dict[str, tuple[Figure, str]]:
    comparison, aligned, label = compared.comparison, compared.aligned, compared.label
    names, plan, contrasts = comparison.algorithms, comparison.plan, comparison.contrasts
    verdicts = {one.algorithm: shown(one, plan) for one in contrasts}
    percent = f"{100 * plan.confidence:.3g} %"
    better = "higher is better" if plan.higher_is_better else "lower is better"
    return {
        "differences": (
            comparison_figures.forest(
                names[1:],
                np.array([one.mean_difference for one in contrasts]),
                np.array([(one.low, one.high) for one in contrasts]),
                verdicts=list(verdicts.values()),
                margin=plan.equivalence_margin,
                label=f"difference from {comparison.control}, {label} ({better})",
            ),
            f"Mean over patients and its paired bootstrap interval ({percent}). Open: neither a difference nor "
            "equivalence was shown. By ranks: the test shows it, though the mean's own interval holds 0. "
            "Not one way: the mean says one thing, the number of patients another.",
        ),
        "case_differences": (
            comparison_figures.case_differences(
                {name: aligned.scores[:, index + 1] - aligned.scores[:, 0] for index, name in enumerate(names[1:])},
                verdicts=verdicts,
                margin=plan.equivalence_margin,
                label=f"difference from {comparison.control}",
            ),
            f"A bar is a patient ({label}; {better}).",
        ),
    }


def _draw_over_all(compared: Compared) -> dict[str, tuple[Figure, str]]:
    comparison = compared.comparison
    names, plan = comparison.algorithms, comparison.plan
    pictures = {
        "significance_map": (
            comparison_figures.significance_map(
                names,
                comparison.pair_differences,
                comparison.pair_p_holm,
                alpha=plan.alpha,
                label=f"mean difference, {compared.label}",
                higher_is_better=plan.higher_is_better,
            ),
            "All pairs by the same test, with Holm's correction over all of them: more tests than against the "
            "control alone, so that fewer differences show.",
        ),
        "rank_distribution": (
            comparison_figures.rank_distributions(
                names,
                {one.method: one.distribution for one in comparison.stability},
                ranks={one.method: one.ranks for one in comparison.stability},
            ),
            f"{plan.num_bootstrap:,} bootstrap samples of the patients, each ranked anew.",
        ),
    }
    if comparison.critical_difference is not None:
        diagram = comparison_figures.critical_difference_diagram(
            names,
            np.array([one.mean_rank for one in comparison.summaries]),
            critical_difference=comparison.critical_difference,
            alpha=plan.alpha,
        )
        caption = (
            "Mean rank over patients, 1 is best. A bar joins algorithms that Nemenyi's test does not tell apart."
        )
        pictures["critical_difference"] = (diagram, caption)
    return pictures


_PICTURE_TITLES = {
    "differences": "Mean differences",
    "case_differences": "Patient by patient",
    "significance_map": "All pairs",
    "critical_difference": "Critical difference",
    "rank_distribution": "Ranks with other patients",
}


def _page(compared: Compared, pictures: dict[str, tuple[Figure, str]], settings: CompareSettings) -> str:
    comparison, plan = compared.comparison, compared.comparison.plan
    subtitle = (
        f"{comparison.num_cases} patients; control {comparison.control}; margin of equivalence "
        f"{plan.equivalence_margin:g}, alpha {plan.alpha:g}, test {plan.test}: fixed before the scores were read."
    )
    values = [[name, "–" if value is None else str(value)] for name, value in settings.to_dict().items()]
    return page.render(
        title=f"Comparison: {compared.label}",
        subtitle=subtitle,
        verdict=compared.verdict.headline,
        sentences=list(compared.verdict.contrasts.values()),
        caveats=compared.verdict.caveats,
        parts=page_parts(compared, pictures),
        settings=page.Table(title="Settings", header=["setting", "value"], rows=values),
    )


def page_parts(compared: Compared, pictures: Mapping[str, tuple[Figure, str]]) -> list[page.Table | page.Picture]:
    """Tables and pictures of the page, in order."""
    scores, contrasts, overall = report.page_tables(compared.comparison, compared.aligned, compared.costs)
    shown = [
        page.Picture(title=title, image=figures.to_svg(pictures[name][0]), caption=pictures[name][1], alt=title)
        for name, title in _PICTURE_TITLES.items()
        if name in pictures
    ]
    return [scores, shown[0], contrasts, *shown[1:], overall]
