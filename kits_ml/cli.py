"""The command line: one thin command a workflow. Heavy imports stand inside the commands."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from kits_ml import __version__, config, runtime
from kits_ml.errors import CasesFailedError, InputError, MetricMisreadsError
from kits_ml.options import takes_settings


class Commands(click.Group):
    """Prints what is wrong with the input as a line, not as a traceback."""

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except (InputError, MetricMisreadsError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # no permission, a full disk: not a fault of the program
            if error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@click.group(cls=Commands, context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Kidney and kidney-tumour segmentation on CT as a tracked experiment."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("kits_ml").setLevel(logging.INFO)
    runtime.set_environment()


@main.command()
@takes_settings(config.PhantomSettings)
def phantom(settings: config.PhantomSettings) -> None:
    from kits_ml.data.phantom import write_cases

    paths = write_cases(settings)
    click.echo(f"{len(paths)} cases in {settings.output}")


@main.command()
@takes_settings(config.FetchSettings)
def fetch(settings: config.FetchSettings) -> None:
    from kits_ml.data.kits19 import fetch as run

    summary = run(settings)
    click.echo(f"{len(summary.cases)} cases in {settings.output}: {summary.num_downloaded} files fetched now")


@main.command()
@takes_settings(config.InspectSettings)
def inspect(settings: config.InspectSettings) -> None:
    from kits_ml.workflows.inspect import inspect as run

    inspected = run(settings)
    _report_inspection(inspected)
    if inspected.failures:
        raise CasesFailedError(inspected.failures, len(inspected.failures) + len(inspected.fingerprints))


@main.command()
@takes_settings(config.PrepareSettings)
def prepare(settings: config.PrepareSettings) -> None:
    from kits_ml.workflows.prepare import prepare as run

    click.echo(run(settings).store.folder)


@main.command()
@takes_settings(config.ExportSettings)
def export(settings: config.ExportSettings) -> None:
    from kits_ml.workflows.export import export as run

    click.echo(run(settings).folder)


@main.command()
@takes_settings(config.TrainSettings)
def train(settings: config.TrainSettings) -> None:
    from kits_ml.workflows.train import train as run

    _report_training(run(settings))


@main.command("main")
@takes_settings(config.MainSettings)
def whole_path(settings: config.MainSettings) -> None:
    from kits_ml.workflows.main import main as run

    trained, predicted = run(settings)
    _report_training(trained)
    _report_prediction(predicted)


@main.command()
@takes_settings(config.EvaluateSettings)
def evaluate(settings: config.EvaluateSettings) -> None:
    from kits_ml.workflows.evaluate import evaluate as run

    evaluated = run(settings)
    _report_scores(evaluated.cases)
    _report_summary(evaluated.summary)
    click.echo(f"\nscores, summary and pictures: {evaluated.output}")


@main.command()
@takes_settings(config.SelftestSettings)
def selftest(settings: config.SelftestSettings) -> None:
    from kits_ml.workflows.selftest import selftest as run

    _report_selftest(run(settings))


@main.command()
@takes_settings(config.RegisterSettings)
def register(settings: config.RegisterSettings) -> None:
    from kits_ml.workflows.register import register as run

    _report_registered(run(settings))


@main.command()
@takes_settings(config.PredictSettings)
def predict(settings: config.PredictSettings) -> None:
    from kits_ml.workflows.predict import predict as run

    _report_prediction(run(settings))


@main.command()
@takes_settings(config.InfoSettings)
def info(settings: config.InfoSettings) -> None:
    import yaml

    from kits_ml.workflows.info import info as run

    click.echo(yaml.safe_dump(run(settings), sort_keys=False), nl=False)


class StudyCommands(click.Group):
    """Without a command it is `run`; a study's file or name may stand first, without `--study`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in context.help_option_names:
            args = ["run", *args]
        if len(args) > 1 and args[0] in self.commands and not args[1].startswith("-"):
            args = [args[0], "--study", *args[1:]]
        return super().parse_args(context, args)


@main.group(cls=StudyCommands, options_metavar="", subcommand_metavar="COMMAND STUDY [OPTIONS]")
def study() -> None:
    """Search settings for every architecture with the same budget; the options of each command, --config too, are
    shown by `kits-ml study run --help`."""


@study.command("run")
@takes_settings(config.StudySettings)
def study_run(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import run_study as run

    _report_study(run(settings))


@study.command("resume")
@takes_settings(config.StudySettings)
def study_resume(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import resume_study as run

    _report_study(run(settings))


@study.command("worker")
@takes_settings(config.StudySettings)
def study_worker(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import join_study as run

    found = run(settings)
    _report_progress(found.spec, found.progress, found.best)


@study.command("report")
@takes_settings(config.StudySettings)
def study_report(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import report_study as run

    _report_study(run(settings))


@study.command("confirm")
@takes_settings(config.ConfirmSettings)
def study_confirm(settings: config.ConfirmSettings) -> None:
    from kits_ml.studies.confirm import confirm as run

    confirmed = run(settings)
    click.echo("mean Dice of validation patients, both regions, all folds and seeds:")
    for name, value in confirmed.mean_dice.items():
        click.echo(f"  {name:<24}{value:.4f}")
    for name, message in confirmed.failures.items():
        click.echo(f"failed: {name}: {message}")
    if confirmed.registered:
        _report_registered(confirmed.registered)
    click.echo(f"\nscores of cases: {confirmed.folder}")
    click.echo(f"next: kits-ml compare --scores {confirmed.folder / 'test.csv'}")


@study.command("status")
@takes_settings(config.StudySettings)
def study_status(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import study_status as run

    _report_progress(*run(settings))


@main.command()
@takes_settings(config.ModelsSettings)
def models(settings: config.ModelsSettings) -> None:
    from kits_ml.workflows.models import models as run

    click.echo(f"{'name':<24}{'parameters':>12}{'GFLOPs':>9}  {'architecture':<34}paper")
    for one in run(settings):
        click.echo(f"{one.name:<24}{one.num_parameters:>12,}{one.gflops:>9.2f}  {one.title:<34}{one.paper}")


def _report_inspection(inspected) -> None:
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


def _report_training(trained) -> None:
    for part, cases in trained.scores.items():
        click.echo(f"\n{part} cases, on the scans' own grids:")
        _report_scores(cases)
        _report_summary(trained.summaries[part])
    click.echo(f"\nrun {trained.run_id}; pictures and tables: {trained.artifacts}")
    if trained.registered:
        _report_registered(trained.registered)
        python = Path(sys.executable)
        python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
        click.echo("\nnext:")
        click.echo(f"  {python} -m mlflow ui")
        click.echo(
            f"  {python} -m kits_ml predict --model {trained.registered.uri} --image {trained.example_scan} "
            "--output seg.nii.gz --overlay overlay.png"
        )


def _report_selftest(rows) -> None:
    from kits_ml.evaluation.selftest import table

    click.echo(table(rows))
    num_metrics = len({row.metric for row in rows})
    click.echo(f"\n{num_metrics} metric{'s' * (num_metrics > 1)}, {len(rows)} readings: all as theory says")


def _report_registered(registered) -> None:
    aliases = ", ".join(registered.aliases) or "none"
    click.echo(f"registered model {registered.name}, version {registered.version}, alias: {aliases}")


def _report_scores(cases) -> None:
    click.echo(f"{'case':<16}{'region':<10}{'Dice':>8}{'IoU':>8}{'surface Dice':>14}{'volume ml':>11}{'true ml':>9}")
    for case in cases:
        for region, scores in case.regions.items():
            click.echo(
                f"{case.case:<16}{region:<10}{scores.dice:>8.3f}{scores.iou:>8.3f}{scores.surface_dice:>14.3f}"
                f"{scores.volume_pred_ml:>11.1f}{scores.volume_true_ml:>9.1f}"
            )


def _report_summary(summary) -> None:
    for region, found in summary["regions"].items():
        dice = found["dice"]
        line = f"{region} Dice: mean {dice['mean']:.3f}, median {dice['median']:.3f}, cases: {dice['num_cases']}"
        if dice["num_cases"] > 1:
            line += f"; 95 % interval of the mean {dice['ci_low']:.3f} to {dice['ci_high']:.3f}"
        if 0 < found["num_with_region"] < dice["num_cases"]:
            line += f"; mean over the {found['num_with_region']} that show it {dice['with_region']['mean']:.3f}"
        click.echo(line)


def _report_study(found) -> None:
    _report_progress(found.spec, found.progress, found.best)
    click.echo(f"\nrun {found.run_id}; tables, plots and configurations: {found.folder}")
    click.echo(f"next: kits-ml train --config {found.folder / 'best.yaml'}")


def _report_progress(spec, progress, best) -> None:
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


def _report_prediction(predicted) -> None:
    found = ", ".join(f"{region} {value:.1f} ml" for region, value in predicted.volumes_ml.items())
    click.echo(f"{predicted.output}: {found}")
    if predicted.overlay:
        click.echo(f"{predicted.overlay}: overlay")
