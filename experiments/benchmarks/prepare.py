"""How long preparing takes, how much memory, and whether it is exact, beside the literal MONAI chain.

    KITS_ML_REAL_DATA=<folder> python experiments/benchmarks/prepare.py --cache <folder>

measures `ircadb/case_ircadb01` (129 slices; left out without the folder) and phantoms of 270 and 1,059 slices, and
writes `experiments/benchmarks/prepare.md`. Phantoms are made once in the cache folder (two minutes); measuring takes
about ten minutes. Every measurement is a fresh process with one thread, and the ways alternate, so that whatever else
the machine does strikes all of them. Times are without imports; the least of several counts, in brackets the median.
CPU seconds say what is left of the difference on a machine that others use.
The literal chain is `preprocessing.monai_chain(load=True)` and PNGs as Pillow writes them by default. Two workers are
measured by the workflow `prepare` on several cases, with hashing, the start of the processes and the index: all that
the user waits for. The floor is unpacking both files with isal and nothing else. Allowed are three times the int16
volume plus 600 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np

PHANTOM_SLICES = (270, 1059)
WORKER_CASES = 16
WORKER_SLICES = 200
FIXED_MIB = 600 * 1e6 / 2**20
PACKAGES = ("numpy", "isal", "monai", "torch", "pillow")
RESULT = Path(__file__).with_suffix(".md")
BUSY = (
    "**Others used the machine meanwhile**: two processes cannot be judged by these figures, and one process best by "
    "its CPU seconds."
)
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    return tuple(now - then for now, then in zip(_clocks(), start, strict=True))


def literal(case_folder: Path, out: Path) -> tuple[float, float]:
    """MONAI's Compose from the files on, and Pillow's PNGs."""
    import torch
    from PIL import Image

    from kits_ml.config import PreprocessingSettings
    from kits_ml.data import preprocessing

    torch.set_num_threads(1)
    chain = preprocessing.monai_chain(PreprocessingSettings(), load=True)
    start = _clocks()
    prepared = chain({"image": case_folder / "imaging.nii.gz", "label": case_folder / "segmentation.nii.gz"})
    for kind, array in (("images", np.asarray(prepared["image"]) * 255), ("labels", np.asarray(prepared["label"]))):
        (out / kind).mkdir(parents=True)
        for number, one in enumerate(np.rint(array).astype(np.uint8)):
            Image.fromarray(one).save(out / kind / f"{number:04d}.png")
    return _since(start)


def ours(case_folder: Path, out: Path) -> tuple[float, float]:
    """The production path for one case: PNGs, fingerprints of the slices and the record."""
    from kits_ml.config import PreprocessingSettings
    from kits_ml.data import cases, slices

    case = next(case for case in cases.find_cases(case_folder.parent) if case.name == case_folder.name)
    start = _clocks()
    slices.prepare_case(case, digest="", store=out, settings=PreprocessingSettings())
    taken = _since(start)
    for kind in ("images", "labels"):
        (out / kind / case.name).rename(out / "moved")
        (out / kind).rmdir()
        (out / "moved").rename(out / kind)
    return taken


def floor(case_folder: Path, out: Path) -> tuple[float, float]:
    """Unpacking both files with isal into a small buffer, and nothing else."""
    from isal import igzip

    buffer = memoryview(bytearray(1 << 20))
    start = _clocks()
    for path in sorted(case_folder.glob("*.nii.gz")):
        with igzip.open(path, "rb") as stream:
            while stream.readinto(buffer):
                pass
    return _since(start)


def workflow(data: Path, out: Path, num_workers: int) -> tuple[float, float]:
    """The whole workflow on a folder of cases."""
    from kits_ml.config import PrepareSettings
    from kits_ml.workflows.prepare import prepare

    start = _clocks()
    prepare(PrepareSettings(data=str(data), prepared=str(out), num_workers=num_workers))
    return _since(start)


WAYS = {
    "floor": floor,
    "literal": literal,
    "ours": ours,
    "1 process": lambda data, out: workflow(data, out, 1),
    "2 processes": lambda data, out: workflow(data, out, 2),
}


def measure(way: str, folder: Path, out: Path) -> dict[str, float]:
    """One way on one case (or folder of cases) in a fresh process."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--measure", way, str(folder), str(out)]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(first: Path, second: Path) -> str:
    """Pixels of two folders of PNGs that are equal, and equal within 1; whether the labels are identical."""
    from PIL import Image

    def read(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path)).astype(int)

    names = sorted(path.name for path in (first / "images").iterdir())
    if names != sorted(path.name for path in (second / "images").iterdir()):
        raise ValueError(f"{second}: other slices than {first}")
    equal, near = np.mean(
        [
            [np.mean(difference == 0), np.mean(difference <= 1)]
            for name in names
            for difference in [np.abs(read(first / "images" / name) - read(second / "images" / name))]
        ],
        axis=0,
    )
    labels = all(np.array_equal(read(first / "labels" / name), read(second / "labels" / name)) for name in names)
    return f"{equal:.4%} | {near:.4%} | {'identical' if labels else 'DIFFERENT'}"


def phantom_case(folder: Path, num_slices: int, index: int = 0) -> Path:
    """Makes a phantom of so many slices where it is not there yet."""
    from kits_ml.data import phantom, volumes

    if not folder.exists():
        case = phantom.generate_case(seed=0, index=index, num_slices=num_slices)
        geometry = volumes.kits_geometry(case.image.shape, case.spacing_mm)
        partial = folder.with_name(f".{folder.name}.partial")
        volumes.write_image(partial / "imaging.nii.gz", case.image, geometry)
        volumes.write_label_map(partial / "segmentation.nii.gz", case.label_map, geometry)
        partial.rename(folder)
    return folder


def case_table(cases: dict[str, Path], scratch: Path, repetitions: int) -> list[str]:
    """Literal chain, production path and floor, one case a line."""
    from kits_ml.data import volumes

    found: dict[str, dict[str, list[dict]]] = {name: {"floor": [], "literal": [], "ours": []} for name in cases}
    exact = {}
    for repetition in range(repetitions):
        for name, folder in cases.items():
            for way, results in found[name].items():
                results.append(measure(way, folder, scratch / way))
                print(f"{repetition} {name} {way}: {results[-1]}", file=sys.stderr)
            exact[name] = compare(scratch / "literal", scratch / "ours")
    lines = [
        "| case | literal chain, s | production, s | times faster | floor, s | literal, CPU s | production, CPU s "
        "| times less CPU | floor, CPU s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in cases:
        cells = []
        for clock in ("seconds", "cpu_s"):
            least, median = (
                {way: pick(result[clock] for result in results) for way, results in found[name].items()}
                for pick in (min, statistics.median)
            )
            times = f"**{least['literal'] / least['ours']:.1f}** ({median['literal'] / median['ours']:.1f})"
            cells += [
                *(f"{least[way]:.2f} ({median[way]:.2f})" for way in ("literal", "ours")),
                times,
                f"{least['floor']:.2f}",
            ]
        lines.append(" | ".join([f"| {name}", *cells]) + " |")
    lines += [
        "",
        "| case | int16 volume, MiB | allowed, MiB | peak production, MiB | peak literal, MiB | grey equal "
        "| within 1 | labels |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name, folder in cases.items():
        peak = {way: max(result["peak_mib"] for result in results) for way, results in found[name].items()}
        mib = np.prod(volumes.read_geometry(folder / "imaging.nii.gz").shape, dtype=float) * 2 / 2**20
        lines.append(
            f"| {name} | {mib:.0f} | {3 * mib + FIXED_MIB:.0f} | {peak['ours']:.0f} | {peak['literal']:.0f} "
            f"| {exact[name]} |"
        )
    return lines


def worker_table(data: Path, scratch: Path, repetitions: int) -> list[str]:
    """The workflow with one and with two processes."""
    ways = ("1 process", "2 processes")
    found: dict[str, list[dict]] = {way: [] for way in ways}
    for repetition in range(repetitions):
        for way in ways if repetition % 2 else reversed(ways):
            found[way].append(measure(way, data, scratch / "prepared"))
            print(f"{repetition} {way}: {found[way][-1]}", file=sys.stderr)
    lines = ["| processes | least, s | median, s | peak of the largest process, MiB |", "|---|--:|--:|--:|"]
    for way, results in found.items():
        seconds = [result["seconds"] for result in results]
        peak = max(result["peak_mib"] for result in results)
        lines.append(f"| {way} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {peak:.0f} |")
    alone, together = ([result["seconds"] for result in found[way]] for way in ways)
    ratio, median_ratio = min(alone) / min(together), statistics.median(alone) / statistics.median(together)
    return [*lines, "", f"Two processes are **{ratio:.2f}** times as fast (of medians: {median_ratio:.2f})."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", help="folder that keeps the phantoms; default: a temporary one")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, folder, out = arguments.measure
        seconds, cpu_s = WAYS[way](Path(folder), Path(out))
        # a process's figure begins with that of the one that started it: this script's, some 120 MiB
        peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        result = {"seconds": seconds, "cpu_s": cpu_s, "peak_mib": max(peaks) / 1024}
        print(json.dumps({name: round(value, 3) for name, value in result.items()}))
        return
    about = machine.of_page(PACKAGES)
    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(arguments.cache or temporary).absolute()
        scratch = Path(temporary) / "scratch"
        cases = {}
        real = Path(os.environ.get("KITS_ML_REAL_DATA", "")) / "ircadb/case_ircadb01"
        if real.is_dir():
            cases["case_ircadb01"] = real.absolute()
        for num_slices in PHANTOM_SLICES:
            cases[f"phantom, {num_slices:,} slices"] = phantom_case(cache / f"long/case_{num_slices:05d}", num_slices)
        for index in range(WORKER_CASES):
            phantom_case(cache / f"many/case_{index:05d}", WORKER_SLICES, index)
        lines = [f"The workflow `prepare` on {WORKER_CASES} phantoms of {WORKER_SLICES} slices:", ""]
        lines += worker_table(cache / "many", scratch, arguments.repetitions)
        lines += ["", "One case, one process, one thread:", ""]
        lines += case_table(cases, scratch, arguments.repetitions)
    if os.getloadavg()[0] > 1.5 or float(about.split("load ")[1].split()[0]) > 1.5:
        lines.insert(0, BUSY + "\n")
    text = "\n".join(["# Preparing a case", "", *__doc__.splitlines()[2:], "", f"{about}.", "", *lines]) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
