"""What the commands print when they are done: tables and the next commands."""

from __future__ import annotations

import sys
from pathlib import Path

import click


def report_inspection(inspected) -> None:
    names = [one.case for one in inspected.fingerprints] + list(inspected.failures)
    width = max(map(len, names)) + 2
    columns = f"{'case':<{width}}{'slices':>6}  {'spacing mm':<16}{'HU':>14}{'kidney ml':>11}{'tumour ml':>11}"
    click.echo(f"{columns}  findings (! error, ? warning)")
    remarks: dict[str, list[str]] = {}
    for finding in inspected.findings:
        remarks.setdefault(finding.case, []).append(
            {"error": "!", "warning": "?"}.get(finding.level, "") + finding.rule
        )
    for one in inspected.fingerprints:
        spacing = f"{one.slice_spacing_mm:.2g} x {one.row_spacing_mm:.2f}"
        volumes = f"{one.kidney_ml:>11.1f}{one.tumour_ml:>11.1f}" if one.has_labels else f"{'no labels':>22}"
        hu = f"{one.hu.min:.0f}..{one.hu.max:.0f}"
        found = ", ".join(remarks.get(one.case, ()))
        click.echo(f"{one.case:<{width}}{one.slices:>6}  {spacing:<16}{hu:>14}{volumes}  {found}".rstrip())
    for name in inspected.failures:
        click.echo(f"{name:<{width}}unreadable, see below")
    if inspected.selection.rule:
        click.echo("\n" + "\n".join(inspected.selection.explain()))
    click.echo(f"\ntables and plots: {inspected.output}")


def report_training(trained) -> None:
    for part, cases in trained.scores.items():
        click.echo(f"\n{part} cases, on the scans' own grids:")
        report_scores(cases)
        report_summary(trained.summaries[part])
    click.echo(f"\nrun {trained.run_id}; pictures and tables: {trained.artifacts}")
    if trained.registered:
        report_registered(trained.registered)
        if trained.promotion:
            report_promotion(trained.promotion)
        python = Path(sys.executable)
        python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
        click.echo("\nnext:")
        click.echo(f"  {python} -m mlflow ui")
        click.echo(
            f"  {python} -m kits_ml predict --model {trained.registered.uri} --image {trained.example_scan} "
            "--output seg.nii.gz --overlay overlay.png"
        )


def report_selftest(rows) -> None:
    from kits_ml.evaluation.selftest import table

    click.echo(table(rows))
    num_metrics = len({row.metric for row in rows})
    click.echo(f"\n{num_metrics} metric{'s' * (num_metrics > 1)}, {len(rows)} readings: all as theory says")


def report_registered(registered) -> None:
    aliases = ", ".join(registered.aliases) or "none"
    click.echo(f"registered model {registered.name}, version {registered.version}, alias: {aliases}")


def report_promotion(promotion) -> None:
    from kits_ml.evaluation import gate_report

    click.echo(f"\nthe gate: {promotion.aborted or gate_report.headline(promotion.decision)}")
    for line in gate_report.lines(promotion.decision):
        click.echo(line)


def report_scores(cases) -> None:
    click.echo(f"{'case':<16}{'region':<10}{'Dice':>8}{'IoU':>8}{'surface Dice':>14}{'volume ml':>11}{'true ml':>9}")
    for case in cases:
        for region, scores in case.regions.items():
            click.echo(
                f"{case.case:<16}{region:<10}{scores.dice:>8.3f}{scores.iou:>8.3f}{scores.surface_dice:>14.3f}"
                f"{scores.volume_pred_ml:>11.1f}{scores.volume_true_ml:>9.1f}"
            )


def report_summary(summary) -> None:
    for region, found in summary["regions"].items():
        dice = found["dice"]
        line = f"{region} Dice: mean {dice['mean']:.3f}, median {dice['median']:.3f}, cases: {dice['num_cases']}"
        if dice["num_cases"] > 1:
            line += f"; 95 % interval of the mean {dice['ci_low']:.3f} to {dice['ci_high']:.3f}"
        if 0 < found["num_with_region"] < dice["num_cases"]:
            line += f"; mean over the {found['num_with_region']} that show it {dice['with_region']['mean']:.3f}"
        click.echo(line)


def report_comparison(compared) -> None:
    width = max(map(len, compared.comparison.algorithms)) + 2
    click.echo(f"{'algorithm':<{width}}{'mean':>8}{'median':>8}{'mean rank':>11}")
    for one in compared.comparison.summaries:
        click.echo(f"{one.algorithm:<{width}}{one.mean:>8.3f}{one.median:>8.3f}{one.mean_rank:>11.2f}")
    click.echo(f"\n{compared.verdict.headline}")
    for sentence in (*compared.verdict.contrasts.values(), *compared.verdict.caveats):
        click.echo(f"- {sentence}")
    click.echo(f"\npage, tables and pictures: {compared.output}")


def report_study(found) -> None:
    report_progress(found.spec, found.progress, found.best)
    click.echo(f"\nrun {found.run_id}; tables, plots and configurations: {found.folder}")
    click.echo(f"next: kits-ml train --config {found.folder / 'best.yaml'}")


def report_confirmed(confirmed) -> None:
    click.echo("mean Dice of validation patients, both regions, all folds and seeds:")
    for name, value in confirmed.mean_dice.items():
        click.echo(f"  {name:<24}{value:.4f}")
    for name, message in confirmed.failures.items():
        click.echo(f"failed: {name}: {message}")
    if confirmed.compared:
        click.echo("\non test patients:\n")
        report_comparison(confirmed.compared)
    if confirmed.registered:
        report_registered(confirmed.registered)
        if confirmed.promotion:
            report_promotion(confirmed.promotion)
    click.echo(f"\nscores of cases: {confirmed.folder}; all of it: {confirmed.folder.parent / 'study.html'}")


def report_progress(spec, progress, best) -> None:
    width = max(map(len, progress)) + 2
    columns = "".join(f"{name:>10}" for name in ("complete", "pruned", "failed", "lost", "running", "minutes"))
    click.echo(f"{'architecture':<{max(width, 14)}}{columns}{'best':>10}  trial")
    for name, one in progress.items():
        numbers = (one.complete, one.pruned, one.failed, one.lost, one.running)
        counts = "".join(f"{number:>10}" for number in numbers) + f"{one.minutes:>10.1f}"
        found = f"{best[name].values[0]:>10.4f}  {best[name].number}" if name in best else f"{'-':>10}"
        click.echo(f"{name:<{max(width, 14)}}{counts}{found}")
    click.echo(
        f"best: {spec.objectives[0]}, validation patients, of {spec.search.trials or 'any number of'} trials each"
    )


def report_prediction(predicted) -> None:
    found = ", ".join(f"{region} {value:.1f} ml" for region, value in predicted.volumes_ml.items())
    for name, path in predicted.outputs.paths().items():
        click.echo(f"{path}: {found if name == 'output' else name}")


def report_predictions(predicted) -> None:
    num_failed = sum("seconds" not in row for row in predicted.rows.values())
    num_done = len(predicted.rows) - predicted.num_kept - num_failed
    click.echo(f"{num_done} scans segmented, {predicted.num_kept} were there, {num_failed} failed")
    click.echo(f"label maps and predictions.csv: {predicted.output}")


def report_tuning(tuned) -> None:
    click.echo(
        f"{'setting':<24}{'value':>8}{'composite Dice':>16}{'95 % interval':>22}{'better':>8}{'worse':>7}"
        f"{'p of all':>10}  helps"
    )
    for number, effects in enumerate(tuned.rounds, start=1):
        for one in effects:
            if one.metric == "composite_dice":
                interval = f"{one.low:+.4f} to {one.high:+.4f}"
                click.echo(
                    f"{one.option:<24}{one.value!s:>8}{one.mean_difference:>+16.4f}{interval:>22}{one.num_better:>8}"
                    f"{one.num_worse:>7}{one.family_p:>10.3f}  {'yes' if one.helps else 'not shown'}"
                )
        click.echo(f"round {number}, {tuned.num_cases} patients")
    off = type(tuned.chosen)()
    on = {name: value for name, value in tuned.chosen.to_dict().items() if value != getattr(off, name)}
    click.echo(
        "\nchosen: " + (", ".join(f"{name} {value}" for name, value in on.items()) or "nothing; all stays off")
    )
    click.echo(f"tables: {tuned.output}")
    if tuned.registered:
        report_registered(tuned.registered)
    click.echo(f"next: kits-ml predict --config {tuned.output / 'postprocessing.yaml'} --image ... --output ...")
