"""A real server in a thread, with a stand-in for the network: all but the arithmetic is what users get."""

import contextlib
import io
import logging
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import requests
import uvicorn

from kits_ml.config import ServeSettings
from kits_ml.data import volumes
from kits_ml.inference.provenance import ModelSource, Provenance
from kits_ml.serving.answers import Reporting
from kits_ml.serving.app import create_app
from kits_ml.serving.champion import Champion, Model, version_name
from kits_ml.serving.metrics import Metrics
from kits_ml.serving.protocol import ImpatientProtocol
from kits_ml.serving.service import Service
from tests.waiting import wait_until


class Bright:
    """In place of a network: kidney above 100 HU, tumour above 200. Waits at each slice while it is told to."""

    def __init__(self, *, above: int = 100):
        self.above = above
        self.models = (ModelSource(address="models:/net/1", sha256={}),)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.at_work = threading.Event()
        self.num_begun = 0

    def provenance(self, *, scan, note):
        return Provenance(
            scan=scan, models=self.models, engine="none", test_time_augmentation="none", postprocessing={}, note=note
        )

    def segment(self, image, *, spacing_mm, observe=None):
        label_map = (image > self.above).astype(np.uint8) + (image > self.above + 100)
        if observe is None:
            return label_map
        self.num_begun += 1
        for index, one in enumerate(label_map):
            self.at_work.set()
            while not self.may_go_on.wait(0.02):
                observe(index, (slice(0, one.shape[0]), slice(0, one.shape[1])), _one_hot(one))
            observe(index, (slice(0, one.shape[0]), slice(0, one.shape[1])), _one_hot(one))
        return label_map


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels == value for value in range(3)]).astype(np.float32)


class _Meter:
    def __init__(self, shape):
        self.entropy, self.num_seen = np.zeros(shape, np.uint8), 0

    def __call__(self, index, inside, probabilities):
        self.num_seen += 1


@dataclass(frozen=True)
class _Report:
    content: dict

    def to_dict(self):
        return self.content


def _assess(image, label_map, *, spacing_mm, uncertainty, training, provenance):
    counts = [int((label_map == value).sum()) for value in range(3)]
    content = {"counts": counts, "spacing_mm": list(spacing_mm), "training": training}
    return _Report(content | {"provenance": provenance.to_dict()})


def _render_page(report, image, label_map, *, affine, read_entropy):
    assert affine.shape == (4, 4)
    assert read_entropy().shape == image.shape == label_map.shape
    return f"<!DOCTYPE html><title>test</title><p id=counts>{report.content['counts']}</p>"


REPORTING = Reporting(meter=_Meter, assess=_assess, render_page=_render_page)


@dataclass
class Served:
    """A running service.

    Attributes:
        url: with a slash at the end.
        service: behind it.
        network: of the first model.
        folder: where its scans lie while they are worked on.
        connections: that are open; the server changes it.
        address: what the look-out for a champion finds; set it and call `service.champion.refresh`.
    """

    service: Service
    network: Bright
    folder: Path
    url: str = ""
    address: str = "models:/net/1"
    networks: dict = field(default_factory=dict)
    connections: set = field(default_factory=set)

    def post(self, body: bytes, **options) -> requests.Response:
        path = options.pop("path", "v1/segment")
        return requests.post(f"{self.url}{path}", data=body, timeout=30, **options)

    def files(self) -> list[Path]:
        """What is on disk of scans, in the services' own folders; libraries have temporary files beside them."""
        return [path for path in self.folder.glob("kits-ml-*/**/*") if path.name != "lock"]


@contextlib.contextmanager
def serving(folder: Path, *, reporting: Reporting = REPORTING, **settings) -> Iterator[Served]:
    """A service on a free port, its temporary files in `folder`."""
    settings = ServeSettings(**{"port": 0, "poll_seconds": 0.0, **settings})
    network = Bright()
    metrics = Metrics()
    served = Served(service=None, network=network, folder=folder)
    served.networks = {"models:/net/1": network}
    champion = Champion(
        find=lambda: served.address,
        load=lambda address: Model(
            version=version_name(address), segmenter=served.networks[address], training={"num_cases": 3}
        ),
        poll_seconds=settings.poll_seconds,
        loaded=metrics.loaded,
    )
    served.service = Service(settings, champion=champion, reporting=reporting, metrics=metrics)
    config = uvicorn.Config(
        create_app(served.service),
        port=0,
        http=partial(ImpatientProtocol, answer_s=settings.upload_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    served.connections = server.server_state.connections
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        wait_until(lambda: champion.current is not None)
        yield served
    finally:
        network.may_go_on.set()
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def temporary(tmp_path_factory):
    """The folder for temporary files, this process's alone."""
    import tempfile

    folder = tmp_path_factory.mktemp("temporary")
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def shared(temporary) -> Iterator[Served]:
    """A service that several tests use: small limits, so that nothing big has to be sent."""
    logging.getLogger("kits_ml").setLevel(logging.INFO)
    with serving(temporary, max_upload_mb=2, max_unpacked_mb=15, max_voxels=1_000_000) as served:
        yield served


@pytest.fixture
def served(shared) -> Iterator[Served]:
    """The shared service; afterwards it is healthy, idle and has left nothing on disk."""
    yield shared
    shared.network.may_go_on.set()
    wait_until(lambda: shared.service.jobs.num_in_house == 0)
    assert requests.get(f"{shared.url}health", timeout=5).status_code == 200
    assert requests.get(f"{shared.url}ready", timeout=5).json()["status"] == "ready"
    assert shared.files() == []
    if requests.get(f"{shared.url}ready", timeout=5).json()["model"] != "net/1":
        shared.address = "models:/net/1"
        shared.service.champion.refresh()


def scan(shape: tuple[int, int, int] = (4, 20, 24)) -> np.ndarray:
    """HU with a bright kidney and a brighter tumour, their sides of different size."""
    image = np.full(shape, 30, np.int16)
    image[1:-1, 5:12, 6:15] = 150
    image[2:-1, 7:9, 8:12] = 250
    return image


def nifti(image: np.ndarray, *, suffix: str = ".nii.gz", folder: Path) -> bytes:
    """The bytes of a NIfTI file with spacing 3 x 0.8 x 0.7 mm."""
    path = folder / f"made{suffix}"
    volumes.write_image(path, image, volumes.kits_geometry(image.shape, (3.0, 0.8, 0.7)))
    content = path.read_bytes()
    path.unlink()
    return content


def zipped(files: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()
