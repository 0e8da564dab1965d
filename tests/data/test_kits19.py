"""KiTS19 from a server on this machine: what is there at the end, and at any moment before."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from isal import igzip

from kits_ml.config import FetchSettings
from kits_ml.data import kits19, volumes
from kits_ml.data.partial import DamagedError, DiskFullError
from kits_ml.errors import CasesFailedError, InputError
from tests.waiting import wait_until


def image_path(case):
    return f"/images/{case}.nii.gz"


def label_path(case):
    return f"/labels/{case}/segmentation.nii.gz"


@pytest.fixture
def mirror(file_server, tmp_path):
    """Three small cases (two with labels) under the names of the official sources; images of about 200 kB."""
    rng = np.random.default_rng(0)
    geometry = volumes.kits_geometry((6, 128, 128), (3.0, 0.8, 0.8))
    for number in (0, 1, 210):
        case = f"case_{number:05d}"
        volumes.write_image(tmp_path / "i.nii.gz", rng.integers(-1024, 1024, (6, 128, 128)), geometry)
        volumes.write_label_map(tmp_path / "l.nii.gz", rng.integers(0, 3, (6, 128, 128)), geometry)
        file_server.files[image_path(case)] = (tmp_path / "i.nii.gz").read_bytes()
        if number < kits19.NUM_LABELLED_CASES:
            file_server.files[label_path(case)] = (tmp_path / "l.nii.gz").read_bytes()
    file_server.files["/labels/kits.json"] = json.dumps([{"case_id": "case_00000"}]).encode()
    return file_server


@pytest.fixture
def settings(mirror, tmp_path):
    def settings(**changes):
        usual = {
            "output": str(tmp_path / "kits19"),
            "cases": "0-1",
            "num_workers": 2,
            "imaging_url": f"{mirror.url}/images/",
            "labels_url": f"{mirror.url}/labels",
            "timeout_s": 5.0,
            "num_retries": 2,
            "backoff_s": 0.01,
        }
        return FetchSettings(**(usual | changes))

    return settings


def assert_official(folder: Path, mirror, cases=("case_00000", "case_00001")) -> None:
    """The folder holds the server's bytes under the KiTS names, and nothing else that looks like a case."""
    for case in cases:
        assert (folder / case / "imaging.nii.gz").read_bytes() == mirror.files[image_path(case)]
        if label_path(case) in mirror.files:
            assert (folder / case / "segmentation.nii.gz").read_bytes() == mirror.files[label_path(case)]
    assert sorted(path.name for path in folder.glob("case_*")) == sorted(cases)
    assert not list(folder.glob(".fetch/*.part*"))


def test_fetch_brings_cases_records_and_licence(mirror, settings, tmp_path, capsys):
    summary = kits19.fetch(settings())
    folder = tmp_path / "kits19"
    assert_official(folder, mirror)
    assert (folder / "kits.json").read_bytes() == mirror.files["/labels/kits.json"]
    assert "CC BY-NC-SA 4.0" in (folder / "LICENSE-KiTS19.txt").read_text()
    assert summary.cases == ("case_00000", "case_00001")
    assert (summary.num_downloaded, summary.num_present) == (5, 0)  # kits.json and two files a case
    assert summary.num_bytes == sum(len(body) for path, body in mirror.files.items() if "210" not in path)
    screen = capsys.readouterr().err
    assert "CC BY-NC-SA 4.0" in screen
    assert "(5 of 5 files)" in screen


def test_a_second_fetch_asks_for_nothing_and_reads_nothing(mirror, settings, monkeypatch):
    kits19.fetch(settings())
    mirror.requests.clear()
    monkeypatch.setattr(kits19, "check_nifti", lambda path: pytest.fail("read again"))
    summary = kits19.fetch(settings())
    assert (summary.num_downloaded, summary.num_present) == (0, 5)
    assert mirror.requests == []


def test_whole_files_from_elsewhere_are_accepted_and_damaged_ones_replaced(mirror, settings, tmp_path, capsys):
    """As in a clone of the official repository: labels there, images interrupted."""
    for case in ("case_00000", "case_00001"):
        (tmp_path / "kits19" / case).mkdir(parents=True)
        (tmp_path / "kits19" / case / "segmentation.nii.gz").write_bytes(mirror.files[label_path(case)])
    half = mirror.files[image_path("case_00001")][:99_999]
    (tmp_path / "kits19" / "case_00001" / "imaging.nii.gz").write_bytes(half)
    kits19.fetch(settings())
    assert_official(tmp_path / "kits19", mirror)
    assert not any("segmentation" in path for path, _ in mirror.requests)
    assert "the gzip stream is cut or damaged" in capsys.readouterr().err


def test_a_file_touched_since_is_read_again(mirror, settings, tmp_path):
    kits19.fetch(settings())
    target = tmp_path / "kits19" / "case_00000" / "imaging.nii.gz"
    target.write_bytes(b"\x1f\x8b" + b"x" * (target.stat().st_size - 2))
    assert kits19.fetch(settings()).num_downloaded == 1
    assert_official(tmp_path / "kits19", mirror)


def test_overwrite_fetches_again(mirror, settings, tmp_path):
    kits19.fetch(settings())
    assert kits19.fetch(settings(overwrite=True)).num_downloaded == 5
    assert_official(tmp_path / "kits19", mirror)


def test_a_lost_manifest_costs_only_reading(mirror, settings, tmp_path):
    kits19.fetch(settings())
    manifest = tmp_path / "kits19" / ".fetch" / "verified.json"
    entries = json.loads(manifest.read_text())
    image = mirror.files[image_path("case_00001")]
    assert entries["case_00001/imaging.nii.gz"]["sha256"] == hashlib.sha256(image).hexdigest()
    manifest.write_text("{")
    assert kits19.fetch(settings()).num_present == 5
    assert json.loads(manifest.read_text()) == entries


def test_unlabelled_cases_only_on_request_and_images_only(mirror, settings, tmp_path, capsys):
    kits19.fetch(settings(cases="210"))
    assert_official(tmp_path / "kits19", mirror, cases=("case_00210",))
    assert "case_00210 to case_00210 have no published labels" in capsys.readouterr().err


def test_a_case_whose_label_fails_gets_no_image_and_stops_no_other(mirror, settings, tmp_path):
    del mirror.files[label_path("case_00000")]
    with pytest.raises(CasesFailedError, match=r"1 of 2 cases failed:\n  case_00000: .*HTTP 404") as caught:
        kits19.fetch(settings())
    assert caught.value.failures.keys() == {"case_00000"}
    assert_official(tmp_path / "kits19", mirror, cases=("case_00001",))


def test_a_truncated_gzip_of_consistent_length_never_becomes_a_case(mirror, settings, tmp_path):
    path = image_path("case_00000")
    whole = mirror.files[path]
    mirror.files[path] = whole[:-1000]
    with pytest.raises(CasesFailedError, match=r"the gzip stream is cut or damaged .*so were 2 copies in a row"):
        kits19.fetch(settings())
    assert not (tmp_path / "kits19" / "case_00000" / "imaging.nii.gz").exists()
    mirror.files[path] = whole
    kits19.fetch(settings())
    assert_official(tmp_path / "kits19", mirror)


def test_a_server_that_cannot_be_reached_ends_the_fetch_at_once(settings):
    with pytest.raises(InputError, match="given up after 1 tries") as caught:
        kits19.fetch(settings(imaging_url="http://127.0.0.1:1/x", num_retries=0, cases="all", num_workers=1))
    assert "\n" not in str(caught.value)


def test_two_fetches_at_once_download_each_file_once(mirror, settings, tmp_path, monkeypatch):
    said, told = [], threading.Event()
    monkeypatch.setattr(kits19.FetchProgress, "say", lambda _, message: said.append(message))
    mirror.plans[label_path("case_00000")] = [lambda handler, body: told.wait(60) and handler.serve(body)]
    summaries = []
    both = [
        threading.Thread(target=lambda: summaries.append(kits19.fetch(settings(timeout_s=60.0)))) for _ in range(2)
    ]
    for thread in both:
        thread.start()
    wait_until(lambda: "case_00000: another fetch is at it; waiting" in said)
    told.set()
    for thread in both:
        thread.join()
    assert sum(summary.num_downloaded for summary in summaries) == 5
    assert len(mirror.requests) == 5
    assert_official(tmp_path / "kits19", mirror)


def test_a_failing_kits_json_is_named_and_stops_no_case(mirror, settings, tmp_path):
    mirror.files["/labels/kits.json"] = b"[1, 2"
    with pytest.raises(CasesFailedError, match=r"1 of 3 cases failed:\n  kits.json: .*not JSON"):
        kits19.fetch(settings())
    assert_official(tmp_path / "kits19", mirror)


def test_a_full_disk_ends_the_fetch_and_the_next_call_finishes(mirror, settings, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000))  # room for labels only
        with pytest.raises(DiskFullError, match=r"50000 bytes free, .*case_0000[01].nii.gz needs \d+ more"):
            kits19.fetch(settings())
    assert not list((tmp_path / "kits19").glob("case_*/imaging.nii.gz"))
    kits19.fetch(settings())
    assert_official(tmp_path / "kits19", mirror)


def test_an_interrupt_waits_for_no_lock_and_no_server(mirror, settings, tmp_path):
    """Ctrl-C while one case is another fetch's and the other hangs on a silent server."""
    release = threading.Event()
    mirror.plans[label_path("case_00001")] = [lambda handler, body: release.wait()]
    (tmp_path / "kits19" / ".fetch").mkdir(parents=True)
    with filelock.FileLock(tmp_path / "kits19" / ".fetch" / "case_00000.lock"):
        process = _start(settings(timeout_s=600.0))
        try:
            wait_until(lambda: mirror.headers_of(label_path("case_00001")), seconds=120)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=120)
        finally:
            release.set()
            process.kill()
            process.wait()
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in error


@pytest.mark.parametrize("percent", [0, 15, 40, 65, 95])
def test_killed_at_any_moment_the_next_fetch_finishes_the_rest(mirror, settings, tmp_path, percent):
    total = sum(len(body) for path, body in mirror.files.items() if "210" not in path)
    mirror.bytes_per_s = 5e5
    process = _start(settings())
    while not mirror.requests or mirror.total_bytes_sent < total * percent / 100:
        assert process.poll() is None
        _assert_only_whole_files(tmp_path / "kits19", mirror)
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _assert_only_whole_files(tmp_path / "kits19", mirror)
    num_bytes = _bytes_of_images_under_way(tmp_path / "kits19")
    mirror.bytes_per_s = None
    kits19.fetch(settings())
    assert_official(tmp_path / "kits19", mirror)
    for case, size in num_bytes.items():  # not by what the server sent: a slow client leaves much in the socket
        assert mirror.headers_of(image_path(case))[-1].get("range", "bytes=0-") == f"bytes={size}-"


def _bytes_of_images_under_way(folder: Path) -> dict[str, int]:
    """How much of each begun image lies on the disk, by case; an image that has come whole is not under way."""
    partials = {path.name.split("-")[0]: path for path in folder.glob(".fetch/*imaging.nii.gz.part")}
    records = {case: path.with_name(path.name + ".json") for case, path in partials.items()}
    sizes = {case: path.stat().st_size for case, path in partials.items() if records[case].exists()}
    return {case: size for case, size in sizes.items() if size < json.loads(records[case].read_text())["size"]}


def _start(settings: FetchSettings) -> subprocess.Popen:
    # under a shell's `&` SIGINT would be ignored, and so would it here
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "import sys, json; from kits_ml.data import kits19; from kits_ml.config import FetchSettings; "
    code += "kits19.fetch(FetchSettings(**json.loads(sys.argv[1])))"
    command = [sys.executable, "-c", code, json.dumps(settings.to_dict())]
    environment = os.environ | {"PYTHONPATH": str(Path(kits19.__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def _assert_only_whole_files(folder: Path, mirror) -> None:
    for case in ("case_00000", "case_00001"):
        image, label = folder / case / "imaging.nii.gz", folder / case / "segmentation.nii.gz"
        if image.exists():
            assert image.read_bytes() == mirror.files[image_path(case)]
            assert label.exists()
        if label.exists():
            assert label.read_bytes() == mirror.files[label_path(case)]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-2,5", [0, 1, 2, 5]), (" case_00123 , 7", [7, 123]), ("case_00003-case_00004,3", [3, 4]), ("299", [299])],
)
def test_parse_cases(text, numbers):
    assert kits19.parse_cases(text) == [f"case_{number:05d}" for number in numbers]


def test_all_means_the_labelled_cases():
    assert kits19.parse_cases("all") == [f"case_{number:05d}" for number in range(210)]


@pytest.mark.parametrize("text", ["", "3-1", "300", "case-3", "1,,2", "-3", "0-9000000000"])
def test_parse_cases_names_what_it_cannot_read(text):
    with pytest.raises(InputError, match=r"^cases: found .*, expected"):
        kits19.parse_cases(text)


def test_an_address_without_http_is_refused(settings, tmp_path):
    with pytest.raises(InputError, match=r"^labels_url: found 'ftp://x', expected"):
        kits19.fetch(settings(labels_url="ftp://x"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        kits19.fetch(settings(output=str(tmp_path / "file")))


def test_check_nifti_reads_to_the_end(mirror, tmp_path):
    whole = mirror.files[image_path("case_00000")]
    path = tmp_path / "x.nii.gz"
    path.write_bytes(whole)
    kits19.check_nifti(path)
    unpacked = igzip.decompress(whole)
    wrong_checksum = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
    for body, found in [
        (b"", "not NIfTI"),
        (whole[:5], "cut or damaged"),
        (whole[:-1], "cut or damaged"),
        (wrong_checksum, "cut or damaged"),
        (whole[:50_000] + b"\xff" * 64 + whole[50_064:], "cut or damaged"),
        (igzip.compress(unpacked[:-1]), f"found {len(unpacked) - 1} bytes unpacked, expected {len(unpacked)}"),
        (igzip.compress(b"hello " * 1000), "not NIfTI"),
    ]:
        path.write_bytes(body)
        with pytest.raises(DamagedError, match=found):
            kits19.check_nifti(path)


@pytest.mark.parametrize("body", [b"[{", b"{}", b'["case_00000"]', b"[{}]", b"\xff"])
def test_check_kits_json(tmp_path, body):
    (tmp_path / "kits.json").write_bytes(body)
    with pytest.raises(DamagedError, match="JSON"):
        kits19.check_kits_json(tmp_path / "kits.json")
