"""What is wrong with a request, as RFC 9457 has it: one JSON shape for every error, one clear line each."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kits_ml.serving.refusals import CLIENT_LEFT, RefusedError

MEDIA_TYPE = "application/problem+json"

#: RFC 9457, as the service's schema describes it.
SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "what the status means"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was found and what was expected"},
    },
}


def answer(status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The problem as a response."""
    title = "Client Closed Request" if status == CLIENT_LEFT else http.HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the service's schema says of the errors of a route."""
    return {
        status: {"description": http.HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": SCHEMA}}}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem, its own ones too."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        return answer(error.status, error.detail, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return answer(422, "; ".join(found))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return answer(500, "a fault of the service; its log says which")
