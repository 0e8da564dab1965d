"""The service without HTTP: folders for uploads, the reader, the jobs and the model, opened and closed together."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from kits_ml.config import ServeSettings
from kits_ml.errors import InputError, first_line
from kits_ml.files import is_disk_full
from kits_ml.serving import answers, uploads
from kits_ml.serving.answers import Answer, Reporting, Wanted
from kits_ml.serving.champion import Champion, Model
from kits_ml.serving.jobs import Job, Jobs
from kits_ml.serving.leftovers import own_folder
from kits_ml.serving.limits import Limits
from kits_ml.serving.metrics import Metrics
from kits_ml.serving.reader import Reader
from kits_ml.serving.refusals import RefusedError

log = logging.getLogger(__name__)

_UPLOAD_NAME = "received"


class Service:
    """All that requests share.

    Args:
        settings: of the service.
        champion: the model; the service starts and stops it.
        reporting: how the report and the page are made.
        metrics: the counters.
    """

    def __init__(self, settings: ServeSettings, *, champion: Champion, reporting: Reporting, metrics: Metrics):
        self.settings, self.champion, self.metrics = settings, champion, metrics
        self.limits = Limits.of(settings)
        self.jobs = Jobs(queue_size=settings.queue_size, timeout_seconds=settings.timeout_seconds)
        self._reporting = reporting
        self._reader = Reader(self.limits)
        self._root: Path | None = None
        metrics.watch("kits_ml_requests_in_house", "scans that upload, wait or are at work", self._num_in_house)
        metrics.watch("kits_ml_queue_size", "most scans in the house", lambda: settings.queue_size)
        metrics.watch("kits_ml_ready", "1 where a model answers", lambda: float(champion.current is not None))

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Starts what runs beside the requests, and ends it."""
        with own_folder() as self._root:
            self._reader.start()
            self.champion.start()
            try:
                yield
            finally:
                self.champion.stop()
                self.jobs.close()
                self._reader.close()

    def model(self) -> Model:
        """The model that answers now.

        Raises:
            RefusedError: none is there yet (503).
        """
        if self.champion.current is None:
            raise RefusedError(503, "no model is loaded yet; try again soon", headers={"Retry-After": "5"})
        return self.champion.current

    async def segment(
        self, body: AsyncIterator[bytes], wanted: Wanted, *, scan: str, gone: Callable[[], Awaitable[None]]
    ) -> Answer:
        """Receives, reads and segments a scan. What is on disk of it is gone when the answer is there.

        Args:
            body: the upload, in parts.
            wanted: what to make of it.
            scan: what the client calls it; may be empty.
            gone: waits until the client has left.

        Raises:
            RefusedError: what is wrong with the upload, or why it was not done.
        """
        folder = Path(tempfile.mkdtemp(dir=self._root))
        try:
            path = folder / _UPLOAD_NAME
            await uploads.receive(body, path, limits=self.limits, seconds=self.settings.upload_seconds)
            kind = await run_in_threadpool(uploads.check, path, self.limits)
            return await self.jobs.run(lambda job: self._work(path, kind, wanted, scan, job), gone=gone)
        except InputError as error:
            raise RefusedError(422, first_line(error)) from error
        except MemoryError as error:
            raise RefusedError(413, "the scan needs more memory than there is") from error
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise RefusedError(507, "no space left for the upload") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _work(self, path: Path, kind: uploads.Kind, wanted: Wanted, scan: str, job: Job) -> Answer:
        try:
            with self.metrics.stage("read", job.seconds):
                volume = self._reader.read(path, kind, job)
            model = self.model()  # as late as may be: who waited gets the newest
            answer = answers.segment(
                volume, model, wanted, scan=scan, job=job, reporting=self._reporting, metrics=self.metrics
            )
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)  # here, not in the loop that serves the others
        log.info("segmented a scan of %s with %s", "x".join(map(str, volume.array.shape)), model.version)
        return answer

    def _num_in_house(self) -> float:
        return float(self.jobs.num_in_house)
