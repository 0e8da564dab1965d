"""Numbers about the service, in the format that Prometheus reads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kits_ml.serving.refusals import CLIENT_LEFT

#: From a tiny scan on a GPU to a long one on two cores.
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)


class Metrics:
    """The service's counters; each service has its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "kits_ml_requests", "answers by route and status", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "kits_ml_request_seconds", "from request to answer", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self._stages = Histogram(
            "kits_ml_stage_seconds", "parts of a segmentation", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self._loads = Counter("kits_ml_model_loads", "models by result", ["result"], registry=self.registry)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def loaded(self, succeeded: bool) -> None:
        """Counts a model that was loaded, or could not be."""
        self._loads.labels("loaded" if succeeded else "failed").inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    @contextlib.contextmanager
    def stage(self, name: str, seconds: dict[str, float]) -> Iterator[None]:
        """Measures a part of a segmentation that succeeds; notes it in `seconds` too."""
        started = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - started
        self._stages.labels(name).observe(seconds[name])

    def render(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)


class Counted:
    """Counts the answers of an app; plain ASGI, for starlette's own way hides clients that leave."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, started = CLIENT_LEFT, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # no paths of strangers as labels
            self._metrics.answered(route, status, time.perf_counter() - started)
