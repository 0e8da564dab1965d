"""The command line: one thin command a workflow. Heavy imports stand inside the commands."""

from __future__ import annotations

import logging

import click

from kits_ml import __version__, config, importing, runtime, terminal
from kits_ml.errors import CasesFailedError, InputError, MetricMisreadsError, StoppedError, first_line
from kits_ml.options import takes_settings


class Commands(click.Group):
    """Prints what is wrong with the input as a line, not as a traceback."""

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except (InputError, MetricMisreadsError) as error:
            raise click.ClickException(str(error)) from error
        except StoppedError as error:
            stopped = click.ClickException(str(error))
            stopped.exit_code = error.exit_code
            raise stopped from error
        except OSError as error:  # no permission, a full disk: not a fault of the program
            if error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error
        except Exception as error:
            if not _is_of_mlflow(error):
                raise
            raise click.ClickException(f"MLflow: {first_line(error)}") from error


def _is_of_mlflow(error: Exception) -> bool:
    """Whether it is one of MLflow's errors; told without importing them, which takes seconds."""
    return any(one.__module__ == "mlflow.exceptions" for one in type(error).__mro__)


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
    terminal.report_inspection(inspected)
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

    terminal.report_training(run(settings))


@main.command("main")
@takes_settings(config.MainSettings)
def whole_path(settings: config.MainSettings) -> None:
    from kits_ml.workflows.main import main as run

    trained, predicted = run(settings)
    terminal.report_training(trained)
    terminal.report_prediction(predicted)


@main.command()
@takes_settings(config.EvaluateSettings)
def evaluate(settings: config.EvaluateSettings) -> None:
    from kits_ml.workflows.evaluate import evaluate as run

    evaluated = run(settings)
    terminal.report_scores(evaluated.cases)
    terminal.report_summary(evaluated.summary)
    click.echo(f"\nreport.html, scores, summary and pictures: {evaluated.output}")


@main.command()
@takes_settings(config.CompareSettings)
def compare(settings: config.CompareSettings) -> None:
    from kits_ml.workflows.compare import run_comparison as run

    terminal.report_comparison(run(settings))


@main.command()
@takes_settings(config.SelftestSettings)
def selftest(settings: config.SelftestSettings) -> None:
    from kits_ml.workflows.selftest import selftest as run

    terminal.report_selftest(run(settings))


@main.command()
@takes_settings(config.RegisterSettings)
def register(settings: config.RegisterSettings) -> None:
    from kits_ml.workflows.register import register as run

    terminal.report_registered(run(settings))


@main.command()
@takes_settings(config.PromoteSettings)
def promote(settings: config.PromoteSettings) -> None:
    from kits_ml.workflows.promote import promote as run

    promotion = run(settings)
    terminal.report_promotion(promotion)
    if not promotion.promoted:
        raise InputError(promotion.reason)


@main.command()
@takes_settings(config.RollbackSettings)
def rollback(settings: config.RollbackSettings) -> None:
    from kits_ml.workflows.rollback import rollback as run

    done = run(settings)
    click.echo(f"version {done.gone} is champion no more")
    terminal.report_registered(done.champion)


@main.command()
@takes_settings(config.PredictSettings)
def predict(settings: config.PredictSettings) -> None:
    from kits_ml.workflows import predict as one_scan
    from kits_ml.workflows import predict_folder as many_scans

    importing.only_predict()
    if not many_scans.is_folder(settings):
        terminal.report_prediction(one_scan.predict(settings))
        return
    predicted = many_scans.predict_folder(settings)
    terminal.report_predictions(predicted)
    if predicted.failures:
        raise CasesFailedError(predicted.failures, len(predicted.rows))


@main.command("tune-postprocessing")
@takes_settings(config.TunePostprocessingSettings)
def tune_postprocessing(settings: config.TunePostprocessingSettings) -> None:
    from kits_ml.workflows.tune_postprocessing import tune_postprocessing as run

    tuned = run(settings)
    terminal.report_tuning(tuned)
    if tuned.failures:
        raise CasesFailedError(tuned.failures, tuned.num_cases)


@main.command()
@takes_settings(config.ServeSettings)
def serve(settings: config.ServeSettings) -> None:
    from kits_ml.serving.server import serve as run

    run(settings)


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


@study.command("run", help="Search until each architecture has had its budget; a study that is there goes on.")
@takes_settings(config.StudySettings)
def study_run(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import run_study as run

    terminal.report_study(run(settings))


@study.command("resume", help="Go on with a study that was stopped; there must be one.")
@takes_settings(config.StudySettings)
def study_resume(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import resume_study as run

    terminal.report_study(run(settings))


@study.command("worker", help="Help with a running study, from another terminal or machine.")
@takes_settings(config.StudySettings)
def study_worker(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import join_study as run

    found = run(settings)
    terminal.report_progress(found.spec, found.progress, found.best)


@study.command("report", help="Write tables, plots and configurations of a study again, and log what MLflow missed.")
@takes_settings(config.StudySettings)
def study_report(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import report_study as run

    terminal.report_study(run(settings))


@study.command(
    "confirm",
    help="Train the best configuration of each architecture anew, over folds and seeds, and score the test patients.",
)
@takes_settings(config.ConfirmSettings)
def study_confirm(settings: config.ConfirmSettings) -> None:
    from kits_ml.studies.confirm import confirm as run

    terminal.report_confirmed(run(settings))


@study.command("status", help="How far a study is.")
@takes_settings(config.StudySettings)
def study_status(settings: config.StudySettings) -> None:
    from kits_ml.studies.study import study_status as run

    terminal.report_progress(*run(settings))


@main.command()
@takes_settings(config.ModelsSettings)
def models(settings: config.ModelsSettings) -> None:
    from kits_ml.workflows.models import models as run

    click.echo(f"{'name':<24}{'parameters':>12}{'GFLOPs':>9}  {'architecture':<34}paper")
    for one in run(settings):
        click.echo(f"{one.name:<24}{one.num_parameters:>12,}{one.gflops:>9.2f}  {one.title:<34}{one.paper}")
