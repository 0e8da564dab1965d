"""All of KiTS19, 45,000 slices, trains from the page cache: the process itself holds little of it."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NUM_CASES, SLICES_PER_CASE = 225, 200  # 45,000
LOADER = Path(__file__).parents[2] / "experiments/benchmarks/loader.py"

#: Decodes a store, then draws; prints private memory (anonymous pages, in bytes) before, at its most, and after.
DRAW = """
import json, sys, threading
from pathlib import Path
import numpy as np
from kits_ml.config import TrainSettings
from kits_ml.data.slices import PreparedStore
from kits_ml.training import batches, sampling

def private_bytes():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

before, most, stop = private_bytes(), 0, threading.Event()
def watch():
    global most
    while not stop.wait(0.02):
        most = max(most, private_bytes())
watcher = threading.Thread(target=watch)
watcher.start()

store = PreparedStore.open(sys.argv[1])
slices = batches.read_slices(store, list(store.case_digests))
described = batches.describe(slices)
seen, wrong = [], 0
for name in sampling.SAMPLINGS:
    settings = TrainSettings(sampling=name, batch_size=32, input_slices=3, augmentation=False)
    loader = sampling.make_batches(slices, settings)
    for step in range(0, 3000, 15):
        chosen = loader.positions(step)
        images, labels = loader.batch(step)
        seen.extend(chosen)
        wrong += (np.rint(images[:, 0, 0, 1] * 255) != chosen % 64).sum()
        wrong += (labels.max(axis=(1, 2)) != np.maximum(chosen % 4 - 1, 0)).sum()
stop.set()
watcher.join()
files = [path.stat().st_blocks * 512 for path in Path(sys.argv[1]).glob("cache/*/*.npy")]
print(json.dumps({
    "private": most - before, "wrong": int(wrong), "slices": described, "disk": sum(files),
    "reach": [int(min(seen)), int(max(seen))], "different": len(set(map(int, seen))),
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_forty_five_thousand_slices_take_little_private_memory(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    if free < 8e9:
        pytest.skip(f"needs 8 GB in {tmp_path}, found {free / 1e9:.1f}")
    synthetic_store = runpy.run_path(str(LOADER))["synthetic_store"]
    store = synthetic_store(tmp_path / "store", num_cases=NUM_CASES, slices_per_case=SLICES_PER_CASE)
    command = [sys.executable, "-c", DRAW, str(store.folder)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=800)
    finally:
        shutil.rmtree(store.folder)  # 6 GB: not for pytest to keep
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["slices"]["num_slices"] == 45_000
    # of each four slices one shows a kidney and one both
    assert (found["slices"]["slices_with_kidney"], found["slices"]["slices_with_tumour"]) == (22_500, 11_250)
    assert found["wrong"] == 0
    # 3 ways x 200 batches x 32 = 19,200 draws from everywhere
    assert found["reach"][0] < 100
    assert found["reach"][1] >= 44_900
    assert found["different"] > 10_000
    assert found["disk"] == pytest.approx(2 * 256 * 256 * 45_000, rel=0.01)  # 5.9 GB, on the disk and not sparse
    assert found["private"] < 1e9
