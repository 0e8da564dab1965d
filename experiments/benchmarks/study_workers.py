"""Two workers with a thread each, or one worker with two threads: which finishes more trials on the same two cores?

    python experiments/benchmarks/study_workers.py --data $KITS_ML_REAL_DATA/kits-thin

Real trainings of a small U-Net, the same ones for both, in processes of `kits-ml study worker`. The two ways take
turns, so that whatever else the machine does strikes both. A worker counts from the end of its first trial to the end
of its last: the first also starts the backend and decodes the slices, once a process. Memory is the largest resident
set of each worker, all of them added. Writes study_workers.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import machine
import psutil

ROOT = Path(__file__).parents[2]
PACKAGES = ("tensorflow", "keras", "optuna")
DOCUMENT = {
    "architectures": ["unet"],
    "space": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
    "sampler": "RandomSampler",
    "pruner": "NopPruner",
}


class Way(NamedTuple):
    """So many workers with so many threads each."""

    num_workers: int
    num_threads: int

    def __str__(self) -> str:
        workers = "worker" if self.num_workers == 1 else "workers"
        return f"{self.num_workers} {workers}, {self.num_threads} thread{'s' * (self.num_threads > 1)} each"


WAYS = (Way(1, 2), Way(2, 1))


class Found(NamedTuple):
    trials_per_minute: float
    memory_mib: float


def base_settings(options: argparse.Namespace) -> dict:
    """What all trials share but the threads."""
    return {
        **{"data": str(options.data.resolve()), "prepared": str(options.output.resolve() / "prepared")},
        **{"cases": "0-119", "crop": "body", "framing": "spacing", "test_fraction": 0.0, "validation_fraction": 0.3},
        **{"pixel_spacing_mm": 5.0 * 64 / options.image_size, "image_size": options.image_size, "depth": 3},
        **{"base_filters": 8, "epochs": 2, "steps_per_epoch": options.steps, "augmentation": False},
    }


def measure(way: Way, number: int, options: argparse.Namespace, folder: Path) -> Found:
    """One round of one way: a study of its own."""
    import optuna

    from kits_ml.config import StudySettings
    from kits_ml.studies.storage import close_storage, open_storage
    from tests.studies import processes

    name = f"round{number}-{way.num_workers}"
    base = {**base_settings(options), "num_threads": way.num_threads}
    settings = StudySettings(
        study=str(folder / f"{name}.yaml"),
        storage=f"sqlite:///{folder / 'optuna.db'}",
        output=str(folder / "studies"),
        num_processes=1,
    )
    processes.begin(settings, {**DOCUMENT, "name": name, "trials": options.trials, "base": base})
    command = [sys.executable, "-W", "ignore", "-m", "kits_ml", "study", "worker", name, "--poll_s", "0.2"]
    command += ["--num_processes", "1"]
    command += ["--storage", settings.storage, "--output", settings.output]
    with (folder / f"{name}.log").open("wb") as log:
        workers = [subprocess.Popen(command, stdout=log, stderr=log) for _ in range(way.num_workers)]
        memory_mib = peak_memory_mib(workers)
    if any(worker.returncode for worker in workers):
        sys.exit((folder / f"{name}.log").read_text()[-3000:])
    storage = open_storage(settings)
    done = [one for one in optuna.load_study(study_name=f"{name}/unet", storage=storage).trials if one.values]
    close_storage(storage)
    return Found(trials_per_minute(done), memory_mib)


def peak_memory_mib(workers: list[subprocess.Popen]) -> float:
    """Waits for the workers' end, looking at their memory."""
    peaks: dict[int, int] = defaultdict(int)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            for worker in workers:
                with contextlib.suppress(psutil.Error):
                    peaks[worker.pid] = max(peaks[worker.pid], psutil.Process(worker.pid).memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for worker in workers:
        worker.wait()
    ended.set()
    watcher.join()
    return sum(peaks.values()) / 2**20


def trials_per_minute(trials: list) -> float:
    """Of all workers together, without the first trial of each."""
    by_worker = defaultdict(list)
    for trial in trials:
        by_worker[trial.user_attrs["worker"]].append(trial.datetime_complete.timestamp())
    rates = []
    for ends in by_worker.values():
        if len(ends) > 1:
            rates.append(60 * (len(ends) - 1) / (max(ends) - min(ends)))
    return sum(rates)


def report(rounds: dict[Way, list[Found]]) -> str:
    lines = ["| | trials a minute | each round | memory, MiB |", "|---|--:|---|--:|"]
    medians = {}
    for way, found in rounds.items():
        rates = [one.trials_per_minute for one in found]
        medians[way] = statistics.median(rates)
        each = ", ".join(f"{rate:.2f}" for rate in rates)
        memory = statistics.median(one.memory_mib for one in found)
        lines.append(f"| {way} | {medians[way]:.2f} | {each} | {memory:,.0f} |")
    one, two = (medians[way] for way in WAYS)
    return "\n".join([*lines, "", f"Two workers finish {two / one:.2f} times as many trials as one."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of cases")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=8, help="of each study")
    parser.add_argument("--steps", type=int, default=20, help="of each of a trial's two epochs")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("data/study_workers"), help="keeps the prepared slices")
    options = parser.parse_args()
    sys.path.append(str(ROOT))  # studies are begun as in the tests
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

    from kits_ml.config import PrepareSettings
    from kits_ml.workflows.prepare import prepare

    about, started = machine.of_page(PACKAGES), time.time()
    prepare(
        PrepareSettings.from_mapping(
            {k: v for k, v in base_settings(options).items() if k in PrepareSettings.names()}
        )
    )
    rounds: dict[Way, list[Found]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        for number in range(options.rounds):
            for way in WAYS if number % 2 == 0 else WAYS[::-1]:
                rounds[way].append(measure(way, number, options, Path(folder)))
                print(f"round {number + 1}, {way}: {rounds[way][-1]}", file=sys.stderr)
    text = [
        "# Workers and threads",
        *__doc__.strip().split("\n\n")[1:],
        f"{about}. It took {(time.time() - started) / 60:.0f} minutes.",
        f"U-Net, 8 filters, depth 3, {options.image_size}x{options.image_size}, batches of 8, two epochs of "
        f"{options.steps} steps; medians of {options.rounds} rounds of {options.trials} trials:",
        report(rounds) + "\n",
    ]
    output = Path(__file__).with_suffix(".md")
    output.write_text("\n\n".join(text))
    print(output)


if __name__ == "__main__":
    main()
