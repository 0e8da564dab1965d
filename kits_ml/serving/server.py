"""`kits-ml serve`: the service with the real model, reports and server."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from functools import partial
from typing import Any

import uvicorn

from kits_ml import runtime
from kits_ml.config import QualitySettings, ServeSettings
from kits_ml.inference.predictor import read_description
from kits_ml.inference.quality import assess
from kits_ml.inference.quality_page import render_page
from kits_ml.inference.uncertainty import UncertaintyMeter
from kits_ml.serving.answers import Reporting
from kits_ml.serving.app import create_app
from kits_ml.serving.champion import Champion, Model, version_name
from kits_ml.serving.metrics import Metrics
from kits_ml.serving.protocol import ImpatientProtocol
from kits_ml.serving.service import Service
from kits_ml.tracking import addresses
from kits_ml.workflows.segmenters import load_segmenter

log = logging.getLogger(__name__)

#: Connections beside the scans: for health, metrics, and to be told that the house is full.
_OTHER_CONNECTIONS = 64


def serve(settings: ServeSettings) -> None:
    """Serves until it is told to stop (SIGINT, SIGTERM); what is at work then is finished.

    Raises:
        InputError: no such model.
    """
    for address in addresses.split_addresses(settings.model):
        read_description(addresses.local_folder(address))  # a model that is not there is told at once
    if settings.engine == "keras":  # here rather than beside the first requests, and what is wrong is told at once
        runtime.configure(num_threads=settings.num_threads)
    metrics = Metrics()
    champion = Champion(
        find=lambda: ",".join(map(addresses.pinned, addresses.split_addresses(settings.model))),
        load=lambda address: _load(address, settings),
        poll_seconds=settings.poll_seconds,
        loaded=metrics.loaded,
    )
    reporting = reporting_of(settings)
    run(Service(settings, champion=champion, reporting=reporting, metrics=metrics), settings)


def reporting_of(settings: ServeSettings) -> Reporting:
    """Reports as `predict` makes them, with the limits of the settings."""
    limits = settings.select(QualitySettings)
    return Reporting(meter=UncertaintyMeter, assess=partial(assess, settings=limits), render_page=render_page)


def run(service: Service, settings: ServeSettings) -> None:
    """Serves a service until it is told to stop; by SIGTERM it ends as by itself, when all is answered."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)  # uvicorn raises the signal again once it has shut down
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        http=partial(ImpatientProtocol, answer_s=settings.upload_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=settings.queue_size + _OTHER_CONNECTIONS,
        timeout_graceful_shutdown=round(settings.timeout_seconds),
    )
    _Server(config).run()


def _end(*_: object) -> None:
    sys.exit(0)


class _Server(uvicorn.Server):
    """Says where it listens; with port 0 nobody could know else."""

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)


def _load(address: str, settings: ServeSettings) -> Model:
    segmenter = load_segmenter(address, settings)
    training = segmenter.network.description.get("training")
    return Model(version=version_name(address), segmenter=segmenter, training=training)
