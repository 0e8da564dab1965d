"""How long the service takes to start and to answer, and whether its memory stays flat.

    python experiments/benchmarks/service.py --model models:/kits-unet@champion --image scan.nii.gz

starts `kits-ml serve` as a process of its own, sends it a scan 20 times, one request after the other, and then the 20
middle slices of the scan 200 times, and writes `experiments/benchmarks/service.md`. Without `--image` the scan is a
phantom of 129 slices. Without `--model` it is the default U-Net (16 filters, depth 4), untrained and made to find
nothing: the arithmetic is that of a trained one, but a report has nothing to say. `--response all` measures the
report and the page too.

Client seconds are what curl would wait for; server seconds are those of the header Server-Timing, by part. The first
request is not counted. Memory is resident, of the service's process and of its reader's, looked at after each
request; it is flat if the least-squares slope over the last 150 requests, times 150, is below 5 % of what the process
has. On two cores the 20 requests take some minutes, the 200 about ten.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import machine
import numpy as np
import psutil
import requests

NUM_SLICES, NUM_SHORT_SLICES = 129, 20
SETTLED = 50
FLAT = 0.05
PACKAGES = ("tensorflow", "keras", "fastapi", "uvicorn", "numpy")
RESULT = Path(__file__).with_suffix(".md")


def write_model(folder: Path) -> Path:
    """The default U-Net, which takes everything for background."""
    from kits_ml import runtime

    runtime.configure()

    from kits_ml.config import PreprocessingSettings, TrainSettings
    from kits_ml.inference.predictor import Predictor
    from kits_ml.models import build

    model = build(TrainSettings())
    head = next(layer for layer in reversed(model.layers) if layer.weights)
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.where(np.arange(len(bias)) == 0, 1000, bias)])
    Predictor(model, PreprocessingSettings()).save(folder)
    return folder


def write_scans(image: str | None, folder: Path) -> tuple[bytes, bytes, str]:
    """The scan and its middle slices as NIfTI, and what the table calls the scan."""
    from kits_ml.data import images, phantom, volumes

    if image:
        volume = images.read_image(image)
        array, spacing_mm, name = volume.array, volume.spacing_mm, Path(image).name
    else:
        case = phantom.generate_case(seed=0, index=0, num_slices=NUM_SLICES)
        array, spacing_mm, name = case.image, case.spacing_mm, "phantom"
    first = max(0, (len(array) - NUM_SHORT_SLICES) // 2)
    found = []
    for one in (array, array[first : first + NUM_SHORT_SLICES]):
        volumes.write_image(folder / "scan.nii.gz", one, volumes.kits_geometry(one.shape, spacing_mm))
        found.append((folder / "scan.nii.gz").read_bytes())
    return found[0], found[1], f"{name}, {'x'.join(map(str, array.shape))}"


class Server:
    """`kits-ml serve` on a free port; `seconds` is how long it took until it was ready."""

    def __init__(self, model: str, folder: Path):
        command = [sys.executable, "-m", "kits_ml", "serve", "--model", model, "--port", "0", "--poll_seconds", "0"]
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.url = self._url()
        while requests.get(f"{self.url}/ready", timeout=60).status_code != 200:
            time.sleep(0.05)
        self.seconds = time.perf_counter() - started

    def _url(self) -> str:
        for line in self.process.stderr:
            if found := re.search(r"listening on (http://\S+)", line):
                return found[1]
        raise RuntimeError(f"kits-ml serve ended with {self.process.wait()}")

    def segment(self, scan: bytes, response: str) -> tuple[float, dict[str, float]]:
        """Seconds for the client, and those of the server's parts."""
        started = time.perf_counter()
        answer = requests.post(f"{self.url}/v1/segment", data=scan, params={"response": response}, timeout=3600)
        seconds = time.perf_counter() - started
        answer.raise_for_status()
        parts = re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"])
        return seconds, {name: float(milliseconds) / 1000 for name, milliseconds in parts}

    def resident_mib(self) -> tuple[float, float]:
        """Of the service, and of the processes it has started."""
        process = psutil.Process(self.process.pid)
        children = sum(child.memory_info().rss for child in process.children(recursive=True))
        return process.memory_info().rss / 2**20, children / 2**20

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def time_table(client: Sequence[float], server: Sequence[Mapping[str, float]]) -> list[str]:
    """Median and 95th percentile of what the client waited, and of the server's parts."""
    rows = {"client": list(client), "server": [sum(one.values()) for one in server]}
    rows |= {f"server: {part}": [one[part] for one in server] for part in server[0]}
    lines = ["| seconds | median | 95th percentile |", "|---|--:|--:|"]
    for name, seconds in rows.items():
        lines.append(f"| {name} | {statistics.median(seconds):.2f} | {np.percentile(seconds, 95):.2f} |")
    return lines


def memory_table(resident_mib: Sequence[tuple[float, float]]) -> list[str]:
    """How the memory goes over the requests, and whether it is flat."""
    lines = ["| MiB resident | first | after 50 | last | most | slope, MiB a request | flat |"]
    lines.append("|---|--:|--:|--:|--:|--:|---|")
    for name, mib in zip(("service", "reader"), np.transpose(resident_mib), strict=True):
        settled = mib[SETTLED:] if len(mib) > 2 * SETTLED else mib[len(mib) // 4 :]
        slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0])
        is_flat = abs(slope) * len(settled) < FLAT * settled.mean()
        row = (f"{one:.0f}" for one in (mib[0], settled[0], mib[-1], mib.max()))
        lines.append(f"| {name} | {' | '.join(row)} | {slope:+.3f} | {'yes' if is_flat else '**no**'} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="as for kits-ml serve; default: the default U-Net, untrained")
    parser.add_argument("--image", help="a scan; default: a phantom")
    parser.add_argument("--response", default="segmentation", help="what is asked for, also `all`")
    parser.add_argument("--requests", type=int, default=20, help="of the whole scan")
    parser.add_argument("--short_requests", type=int, default=200, help="of its 20 middle slices")
    parser.add_argument("--output", type=Path, default=RESULT, help="the page to write")
    arguments = parser.parse_args()
    about = machine.of_page(PACKAGES)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = arguments.model or str(write_model(folder / "unet"))
        scan, short, name = write_scans(arguments.image, folder)
        (folder / "served").mkdir()
        server = Server(model, folder / "served")
        try:
            first, _ = server.segment(scan, arguments.response)
            times = [server.segment(scan, arguments.response) for _ in range(arguments.requests)]
            short_seconds, resident_mib = [], []
            for _ in range(arguments.short_requests):
                short_seconds.append(server.segment(short, arguments.response)[0])
                resident_mib.append(server.resident_mib())
            left = [path.name for path in (folder / "served").rglob("*") if path.is_file() and path.name != "lock"]
        finally:
            server.stop()
    lines = [
        f"{name}, {len(scan) / 1e6:.1f} MB, response {arguments.response}; {len(times)} requests, one at a time:",
        *("", *time_table(*zip(*times, strict=True)), ""),
        f"From the start of the process until it is ready: {server.seconds:.1f} s; the first request: {first:.2f} s.",
        "",
        f"Its {NUM_SHORT_SLICES} middle slices, {len(resident_mib)} requests, "
        f"median {statistics.median(short_seconds):.2f} s:",
        *("", *memory_table(resident_mib), ""),
        f"Files left on disk afterwards: {', '.join(left) or 'none'}.",
    ]
    text = "\n".join(["# The service", "", *__doc__.splitlines()[2:], "", f"{about}.", "", *lines]) + "\n"
    arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
