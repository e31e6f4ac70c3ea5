"""Owns the OpenAPI document: what FastAPI cannot know, because bodies and answers do not go through it."""

from collections import defaultdict
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from jobs.request import JobRequest
from worker.web.problems import MEDIA_TYPE, Kind
from worker.web.schema import JobDetail, JobView, Problem, State

DESCRIPTION = """\
Asynchronous jobs of AI media generation: accepted at once, retried, failed over, and told about by webhook.

Every answer carries an `X-Request-Id`: the caller's own (1-128 of `A-Za-z0-9._:-`), or a new one. Every error is a
`Problem` with a `code`.
"""

REQUEST_EXAMPLE = {
    "id": "order-1841",
    "kind": "video",
    "model": "veo3",
    "fallbacks": ["sora-2"],
    "input": {"prompt": "a lighthouse at dusk", "aspect_ratio": "16:9"},
    "webhook_url": "https://shop.example/hooks/media",
    "webhook_events": ["job.completed", "job.failed", "job.canceled"],
    "metadata": {"customer": 77},
    "deadline_s": 3600,
    "max_attempts": 5,
    "on_unknown_submit": "retry",
}

OPEN: dict[str, Any] = {"security": []}  # no token asked for

CREATE_JOB: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The job's id, where the body names none. Both together must be the same.",
            "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._:-]{1,128}$"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/JobRequest"},
                "examples": {
                    "least": {"value": {"kind": "image", "input": {"prompt": "a lighthouse at dusk"}}},
                    "everything": {"value": REQUEST_EXAMPLE},
                },
            }
        },
    },
}

_ERRORS = [{"field": "kind", "message": "must be 'video', 'image', 'music', 'audio' or 'voice'"}]

Responses = dict[int | str, dict[str, Any]]


def shown(status: int, description: str, schema: str = "State") -> Responses:
    """Describe a good answer by the name of its schema."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {status: {"description": description, "content": content}}


def problems(*kinds: Kind) -> Responses:
    """Describe problems, those of one status together."""
    grouped: defaultdict[int, list[Kind]] = defaultdict(list)
    for kind in kinds:
        grouped[kind.status].append(kind)
    return {
        status: {
            "description": " or ".join(f"{kind.title} (`{kind.code}`)" for kind in same),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {kind.code: {"value": _example(kind)} for kind in same},
                }
            },
        }
        for status, same in grouped.items()
    }


def _example(kind: Kind) -> dict[str, Any]:
    shared = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": "...", "code": kind.code}
    return {**shared, "errors": _ERRORS} if kind is Kind.INVALID_REQUEST else shared


def describe(api: FastAPI, *, locked: bool) -> None:
    """Have the API describe itself whole. ``locked``: a token is asked for."""

    def document() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = _document(api, locked=locked)
        return api.openapi_schema

    # This is how FastAPI's manual extends the document.
    api.openapi = document  # type: ignore[method-assign]


def _guards(*, locked: bool, is_open: bool) -> tuple[Kind, ...]:
    """Name the problems the guard answers with."""
    if locked:
        return () if is_open else (Kind.UNAUTHORIZED,)
    return (Kind.FORBIDDEN_HOST, Kind.FORBIDDEN_ORIGIN)


def _document(api: FastAPI, *, locked: bool) -> dict[str, Any]:
    document = get_openapi(title=api.title, version=api.version, description=DESCRIPTION, routes=api.routes)
    _, found = models_json_schema(
        [(JobRequest, "validation"), *((model, "serialization") for model in (JobView, JobDetail, Problem, State))],
        ref_template="#/components/schemas/{model}",
    )
    parts = document.setdefault("components", {})
    parts["schemas"] = found["$defs"]  # instead of FastAPI's own description of errors, which nobody answers with
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            is_open = operation.get("security") == []
            for status, answer in problems(*_guards(locked=locked, is_open=is_open), Kind.INTERNAL_ERROR).items():
                responses.setdefault(str(status), answer)
    if locked:
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": "One of API_TOKENS."}}
        document["security"] = [{"token": []}]
    return document
