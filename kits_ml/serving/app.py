"""The routes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib import resources
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

import kits_ml
from kits_ml.serving import problems, uploads
from kits_ml.serving.answers import FILE_NAMES, MEDIA_TYPES, Wanted
from kits_ml.serving.metrics import Counted
from kits_ml.serving.negotiation import wanted_by
from kits_ml.serving.refusals import CLIENT_LEFT, RefusedError
from kits_ml.serving.service import Service

#: The upload page asks nobody for anything but the service itself. The report it shows is bound by the same policy:
#: its viewer makes its own shaders and workers.
_UPLOAD_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self' data: blob:; worker-src blob:; frame-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
#: The report by itself has a policy of its own in it; here it loses the service's origin.
_REPORT_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'none'"

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}

#: The body is the file itself; its bytes decide what it is.
_BODY = {
    "requestBody": {
        "required": True,
        "description": uploads.EXPECTED.removeprefix("expected "),
        "content": dict.fromkeys(("application/octet-stream", "application/gzip", "application/zip"), _BINARY),
    }
}
_HEADERS = {
    "Model-Version": {"description": "the model that answered", "schema": {"type": "string"}},
    "Server-Timing": {"description": "what its parts took, in ms", "schema": {"type": "string"}},
}
_ANSWERS = {
    200: {
        "description": "what was asked for",
        "headers": _HEADERS,
        "content": {
            MEDIA_TYPES[Wanted.SEGMENTATION]: _BINARY,
            MEDIA_TYPES[Wanted.DICOM_SEG]: _BINARY,
            MEDIA_TYPES[Wanted.REPORT]: {"schema": {"type": "object"}},
            MEDIA_TYPES[Wanted.PAGE]: {"schema": {"type": "string"}},
            MEDIA_TYPES[Wanted.ALL]: _BINARY,
        },
    },
    **problems.described(400, 403, 406, 408, 413, 415, 422, 429, 500, 503, 504, 507),
}

_WHAT = (
    "segmentation: the label map, NIfTI on the scan's own grid; dicom_seg: the same as DICOM SEG, for a scan that is "
    "DICOM; report: JSON; page: HTML; all: a zip of these. "
    "Without it the header Accept decides; without a wish there either, it is the segmentation."
)

_NAME = "The scan's file name, for the report and the page; folders before it are left out."


def create_app(service: Service) -> ASGIApp:
    """The service as an ASGI app."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with service.opened():
            yield

    # FastAPI's pages on the schema come from somebody else's server; the schema itself says as much
    app = FastAPI(
        title="kits_ml",
        summary="Kidney and kidney-tumour segmentation on CT. For research use only, not a medical device.",
        version=kits_ml.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    problems.install(app)
    _add_segment(app, service)
    _add_states(app, service)
    return Counted(app, service.metrics)


def _add_segment(app: FastAPI, service: Service) -> None:
    @app.get("/", response_class=HTMLResponse, summary="The page to upload a scan on")
    async def page() -> HTMLResponse:
        text = resources.files("kits_ml.serving").joinpath("upload.html").read_text()
        return HTMLResponse(text, headers={**_PAGE_HEADERS, "Content-Security-Policy": _UPLOAD_POLICY})

    @app.post(
        "/v1/segment",
        summary="Segment a scan",
        response_class=Response,
        responses=_ANSWERS,
        openapi_extra=_BODY,
    )
    async def segment(
        request: Request,
        response: Annotated[Wanted | None, Query(description=_WHAT)] = None,
        name: Annotated[str, Query(description=_NAME, max_length=255)] = "",
    ) -> Response:
        wanted = response or wanted_by(request.headers.get("accept"))
        service.model()
        _check_sender(request)
        uploads.check_length(request.headers.get("content-length"), service.limits)
        try:
            with service.jobs.admitted():
                found = await service.segment(
                    request.stream(), wanted, scan=_plain(name), gone=lambda: _gone(request)
                )
        except ClientDisconnect:
            raise RefusedError(CLIENT_LEFT, "the client left") from None
        headers = {
            **_PAGE_HEADERS,
            "Model-Version": found.version,
            "Content-Disposition": f'attachment; filename="{FILE_NAMES[wanted]}"',
            "Server-Timing": ", ".join(f"{part};dur={1000 * taken:.1f}" for part, taken in found.seconds.items()),
            "Vary": "Accept",
        }
        if wanted is Wanted.PAGE:
            headers |= {"Content-Disposition": "inline", "Content-Security-Policy": _REPORT_POLICY}
        return Response(found.body, media_type=MEDIA_TYPES[wanted], headers=headers)


def _add_states(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Whether the process lives", responses=problems.described(503))
    async def health() -> JSONResponse:
        if service.jobs.hangs():
            raise RefusedError(503, "the scan at work does not come back; restart the service")
        return JSONResponse({"status": "ok"})

    # a full queue is ready too: taken out of a load balancer, it could not tell anybody when to come again
    @app.get(
        "/ready",
        summary="Whether a model answers; with a full queue too, which says 429 itself",
        responses=problems.described(503),
    )
    async def ready() -> JSONResponse:
        model = service.model()
        return JSONResponse({"status": "ready", "model": model.version})

    @app.get(
        "/metrics",
        summary="Counters, for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _plain(name: str) -> str:
    """A file's name without folders, whichever way they are written, and without what cannot be seen."""
    return "".join(one for one in name.replace("\\", "/").rpartition("/")[2] if one.isprintable())


def _check_sender(request: Request) -> None:
    """Refuses forms, and pages of other sites: a browser sends scans for them to addresses that they cannot reach."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise RefusedError(403, "a page of another site, expected the service's own page or a program")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise RefusedError(415, f"a form ({kind}), expected the file itself as the body (curl --data-binary @FILE)")


async def _gone(request: Request) -> None:
    """Ends when the client has left; the body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
