"""What a study costs beside its trainings, and how much more several workers do.

    python experiments/benchmarks/study_overhead.py                 # 3 trials of 60 s, then 1 and 4 workers
    python experiments/benchmarks/study_overhead.py --seconds 600 --workers 0

The trials only sleep, a twelfth of their time an epoch, so all else that happens is the machinery: Optuna chooses, a
network is built, each epoch is reported and may be pruned, scores and curves go to the database and to MLflow
(SQLite both), and at the end come tables, plots and the page. A trial's own cost is the time from its start to the
next one's, less the sleep; CPU seconds tell it whatever else the machine does. Compiling the network is no part of
it: a training without a study does that too. The workers are processes, on a PostgreSQL server and an MLflow database
in SQLite; each counts from its first trial's start to its last one's end. Wanted: four workers do at least 3.6 times
as much as one. Writes study_overhead.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import machine

ROOT = Path(__file__).parents[2]
PACKAGES = ("optuna", "mlflow", "tensorflow", "psycopg")
WANTED_RATIO = 3.6
NUM_EPOCHS = 12
DOCUMENT = {
    "name": "overhead",
    "architectures": ["unet"],
    "base": {"epochs": NUM_EPOCHS, "image_size": 128},
    "space": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "base_filters": [8, 12, 16]},
}


class Moment(NamedTuple):
    wall_s: float
    cpu_s: float


def now() -> Moment:
    return Moment(time.perf_counter(), time.process_time())


class Sleeper:
    """A training that builds its network and sleeps.

    Attributes:
        begun: when each was.
        built_s: how long its network took, in wall and CPU seconds.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.begun: list[Moment] = []
        self.built_s: list[Moment] = []

    def __call__(self, settings, *, on_epoch):
        from kits_ml.workflows import start
        from kits_ml.workflows.trial import Trialled

        self.begun.append(now())
        model = start.new_model(settings)
        built = now()
        self.built_s.append(Moment(*(one - other for one, other in zip(built, self.begun[-1], strict=True))))
        for epoch in range(settings.epochs):
            time.sleep(self.seconds / settings.epochs)
            on_epoch(epoch, {"loss": 1 / (epoch + 1), "val_foreground_iou": epoch / settings.epochs})
        cases = {f"case_{number:05d}": {"foreground_iou": 0.5, "dice_kidney": 0.5} for number in range(66)}
        return Trialled(
            score=0.5,
            best_epoch=0,
            cases=cases,
            num_parameters=model.count_params(),
            gflops=1.0,
            training_minutes=self.seconds / 60,
        )


def own_costs(options: argparse.Namespace, folder: Path) -> list[str]:
    """Rows of the table: setting up, each trial, the end."""
    from kits_ml.studies.study import run_study

    sleeper, document = Sleeper(options.seconds), {**DOCUMENT, "trials": options.trials}
    settings = settings_in(folder)
    write_study(settings, document)
    started = now()
    result = run_study(settings, train=sleeper)
    ended = now()
    (progress,) = result.progress.values()
    slept_s = options.seconds * progress.complete
    last = sleeper.begun[-1]
    num_gaps = len(sleeper.begun) - 1
    trial = Moment(
        (last.wall_s - sleeper.begun[0].wall_s) / num_gaps - options.seconds,
        (last.cpu_s - sleeper.begun[0].cpu_s) / num_gaps,
    )
    built = sleeper.built_s[1:]
    rows = {
        "begin: databases, runs, the first suggestion": difference(sleeper.begun[0], started),
        "each trial": trial,
        "of it, building the network": Moment(*(sum(values) / len(built) for values in zip(*built, strict=True))),
        "end: the last trial's record, tables, plots, the page": Moment(
            ended.wall_s - last.wall_s - options.seconds, ended.cpu_s - last.cpu_s
        ),
        "all": Moment(ended.wall_s - started.wall_s - slept_s, ended.cpu_s - started.cpu_s),
    }
    lines = [
        f"| {options.trials} trials of {options.seconds:g} s | seconds | of a trial | CPU seconds | of a trial |"
    ]
    lines.append("|---|--:|--:|--:|--:|")
    for name, cost in rows.items():
        of_a_trial = name in ("each trial", "of it, building the network")
        cells = [name]
        for spent_s in cost:
            cells += [f"{spent_s:.2f}", f"{spent_s / options.seconds:.1%}" if of_a_trial else ""]
        lines.append("| " + " | ".join(cells) + " |")
    if trial.wall_s > 2 * trial.cpu_s:
        lines += ["", "**Others used the machine meanwhile**: on a quiet one the seconds are near the CPU seconds."]
    return lines


def difference(late: Moment, early: Moment) -> Moment:
    return Moment(late.wall_s - early.wall_s, late.cpu_s - early.cpu_s)


def settings_in(folder: Path, **changes):
    """A study's settings with all of it in one folder."""
    from kits_ml.config import StudySettings

    places = {"study": str(folder / "study.yaml"), "storage": f"sqlite:///{folder / 'optuna.db'}", "num_processes": 1}
    return StudySettings(**{**places, "output": str(folder / "studies"), **changes})


def write_study(settings, document) -> None:
    import yaml

    Path(settings.study).write_text(yaml.safe_dump(document, sort_keys=False))


def side_by_side(options: argparse.Namespace, folder: Path) -> list[str]:
    """Rows of the table: what one worker does, and several."""
    import optuna

    from kits_ml.studies.storage import close_storage, open_storage
    from tests.studies import processes

    lines = [f"| workers, trials of {options.worker_seconds:g} s | trials a minute | times one | ready after |"]
    lines.append("|---|--:|--:|--:|")
    rates = {}
    (folder / "postgresql").mkdir()
    with processes.postgresql(folder / "postgresql") as url:
        for number in (1, options.workers):
            settings = settings_in(folder, storage=url, poll_s=0.2)
            trials = options.worker_trials * number
            processes.begin(settings, {**DOCUMENT, "name": f"workers{number}", "trials": trials})
            started = time.time()
            workers = [processes.start_worker(settings, seconds=options.worker_seconds) for _ in range(number)]
            codes = [worker.wait() for worker in workers]
            if any(codes):
                sys.exit(processes.worker_log(settings).read_text())
            storage = open_storage(settings)
            done = optuna.load_study(study_name=f"workers{number}/unet", storage=storage).trials
            close_storage(storage)
            done = [trial for trial in done if trial.values]
            begun = {}
            for trial in done:
                begun.setdefault(trial.user_attrs["worker"], trial.datetime_start.timestamp() - started)
            rates[number] = trials_per_second(done)
            ratio = rates[number] / rates[1]
            lines.append(f"| {number} | {60 * rates[number]:.2f} | {ratio:.2f} | {max(begun.values()):.0f} s |")
    reached = rates[options.workers] / rates[1]
    if options.workers == 4:
        verdict = "enough" if reached >= WANTED_RATIO else "too little"
        lines += ["", f"Four workers do {reached:.2f} times as much as one; {WANTED_RATIO} are wanted: {verdict}."]
    return lines


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """A folder of its own, where MLflow's database is too."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        with contextlib.chdir(name):
            yield Path(name)


def trials_per_second(trials: Iterable) -> float:
    """What workers do together, each from the start of its first of Optuna's trials to the end of its last.

    So how long they take to start, and that all wait for the last one in the end, is no part of it.
    """
    by_worker = defaultdict(list)
    for trial in trials:
        if trial.datetime_complete is not None and trial.values is not None:
            by_worker[trial.user_attrs["worker"]].append(trial)
    rates = []
    for done in by_worker.values():
        begun, ended = min(one.datetime_start for one in done), max(one.datetime_complete for one in done)
        rates.append(len(done) / (ended - begun).total_seconds())
    return sum(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of a trial")
    parser.add_argument("--trials", type=int, default=3, help="at least 2")
    parser.add_argument("--workers", type=int, default=4, help="0: leave that part out")
    parser.add_argument("--worker_seconds", type=float, default=10, help="of a trial, for workers")
    parser.add_argument("--worker_trials", type=int, default=6, help="of each worker")
    options = parser.parse_args()
    sys.path.append(str(ROOT))  # servers and workers are those of the tests

    about, output = machine.of_page(PACKAGES), Path(__file__).resolve().with_suffix(".md")
    with elsewhere() as folder:
        parts = [own_costs(options, folder)]
        if options.workers:
            parts.append(side_by_side(options, folder))
    text = ["# A study's own cost", *__doc__.strip().split("\n\n")[1:], f"{about}."]
    output.write_text("\n\n".join([*text, *("\n".join(lines) for lines in parts)]) + "\n")
    print(output)


if __name__ == "__main__":
    main()
