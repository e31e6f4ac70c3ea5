"""Owns the OpenAPI document: what FastAPI cannot know, because bodies and answers do not go through it.

What every operation shares (the guard's answers, headers, the request's id) is added here, so that a route names only
what is its own. Schemas are all those of ``schema``; those of ``examples`` go wherever their schema is shown.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from jobs.request import ID_PATTERN, MODEL_PATTERN, JobRequest
from worker.web import fleet_schema
from worker.web import schema as schemas
from worker.web.body import MAX_BATCH
from worker.web.examples import EXAMPLES, LEAST_EXAMPLE, REFUSALS, REQUEST_EXAMPLE, SUBMISSION_EXAMPLES
from worker.web.problems import GATEWAY_PATH, MEDIA_TYPE, Kind, Refusal, envelope, gateway_error, problem_object
from worker.web.schema import Described

DESCRIPTION = """\
Asynchronous jobs of AI media generation: accepted at once, retried, failed over, and told about by webhook.

Every answer carries an `X-Request-Id`: the caller's own (1-128 of `A-Za-z0-9._:-`), or a new one. Every error is a
`Problem` with a `code`, and everything wrong with a request is named at once. Where `API_TOKENS` is set, one of them
is asked for as a bearer token; where it is not, the server is there for its own machine only.

The operations under **drop-in** speak the Onysoft gateway's own protocol, errors included: a client of the gateway
gains retries, failover and webhooks by changing its base URL and key.
"""

TAGS = [
    {"name": "jobs", "description": "Take jobs, look at them, act on them."},
    {"name": "webhooks", "description": "What was delivered, and everything that was to be, in order."},
    {"name": "drop-in", "description": "The gateway's own protocol. Any kind's look-up finds any job."},
    {"name": "operations", "description": "How the fleet is doing."},
    {"name": "health", "description": "For whoever runs the process. No token is asked for."},
]

OPEN: dict[str, Any] = {"security": []}  # no token asked for

KEY_OF_JOB: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The job's id, where the body names none. Both together must be the same.",
    "schema": {"type": "string", "pattern": f"^{ID_PATTERN}$"},
}
KEY_OF_TASK = KEY_OF_JOB | {
    "description": "The task's id, or, where it cannot be one, what the id is made from. Without it, one is made up.",
    "schema": {"type": "string"},
}
LOCATION = {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}}

HEADERS: Mapping[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "The request's id: the caller's own, or a new one. The log has it, too.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{ID_PATTERN}$"},
    },
    "Retry-After": {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
}
SENT_WITH: Mapping[str, tuple[str, ...]] = {"401": ("WWW-Authenticate",), "503": ("Retry-After",)}

SCHEMAS = "#/components/schemas/"
Responses = dict[int | str, dict[str, Any]]


def _named(examples: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in examples.items()}


def asked(model: dict[str, Any], examples: Mapping[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    """Describe a body of JSON, and the headers that go with it."""
    content = {"application/json": {"schema": model, "examples": _named(examples)}}
    return {"parameters": list(parameters), "requestBody": {"required": True, "content": content}}


CREATE_JOB = asked(
    {"$ref": "#/components/schemas/JobRequest"}, {"least": LEAST_EXAMPLE, "everything": REQUEST_EXAMPLE}, KEY_OF_JOB
)
CREATE_JOBS = asked(
    {
        "type": "object",
        "properties": {
            "jobs": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/JobRequest"},
                "minItems": 1,
                "maxItems": MAX_BATCH,
            }
        },
        "required": ["jobs"],
        "additionalProperties": False,
    },
    {"two": {"jobs": [REQUEST_EXAMPLE, LEAST_EXAMPLE]}},
)
GENERATE = {
    kind: asked(
        {
            "type": "object",
            "properties": {
                "model": {
                    "type": "string",
                    "pattern": f"^{MODEL_PATTERN}$",
                    "description": "The gateway's name of the model.",
                }
            },
            "required": ["model"],
            "additionalProperties": True,
            "description": "The model beside its own parameters, which are passed on as they are.",
        },
        {kind: example},
        KEY_OF_TASK,
    )
    for kind, example in SUBMISSION_EXAMPLES.items()
}


def shown(
    status: int, description: str, schema: str = "State", *, headers: Mapping[str, Any] | None = None
) -> Responses:
    """Describe a good answer by the name of its schema; the schema's examples come along by themselves."""
    content = {"application/json": {"schema": {"$ref": f"{SCHEMAS}{schema}"}}}
    return {status: {"description": description, "headers": dict(headers or {}), "content": content}}


UNREADABLE = (Kind.RECORD_DAMAGED, Kind.NEWER_VERSION)
"""What a record of a job or a delivery may be met with."""


def problems(*kinds: Kind) -> Responses:
    """Describe problems, those of one status together."""
    return _errors({kind: kind.status for kind in kinds}, MEDIA_TYPE, "Problem")


def envelopes(*kinds: Kind) -> Responses:
    """Describe problems as the gateway would put them, those of one status together."""
    return _errors({kind: gateway_error(kind)[0] for kind in kinds}, "application/json", "GatewayError")


def describe(api: FastAPI, *, locked: bool) -> None:
    """Have the API describe itself whole. ``locked``: a token is asked for."""

    def document() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = _document(api, locked=locked)
        return api.openapi_schema

    # This is how FastAPI's manual extends the document.
    api.openapi = document  # type: ignore[method-assign]


ONLY: Mapping[Kind, str] = {
    Kind.UNAUTHORIZED: ", only where `API_TOKENS` is set",
    Kind.FORBIDDEN_HOST: ", only where `API_TOKENS` is not set",
    Kind.FORBIDDEN_ORIGIN: ", only where `API_TOKENS` is not set",
}


def _errors(statuses: Mapping[Kind, int], media_type: str, schema: str) -> Responses:
    in_envelope = schema == "GatewayError"
    grouped: defaultdict[int, list[Kind]] = defaultdict(list)
    for kind, status in statuses.items():
        grouped[status].append(kind)
    return {
        status: {
            "description": " or ".join(_words(kind, in_envelope=in_envelope) for kind in same),
            "content": {
                media_type: {
                    "schema": {"$ref": f"{SCHEMAS}{schema}"},
                    "examples": _named({kind.code: _example(kind, in_envelope=in_envelope) for kind in same}),
                }
            },
        }
        for status, same in grouped.items()
    }


def _words(kind: Kind, *, in_envelope: bool) -> str:
    code = gateway_error(kind)[1] if in_envelope else kind.code
    return f"{kind.title} (`{code}`){ONLY.get(kind, '')}"


def _example(kind: Kind, *, in_envelope: bool) -> dict[str, Any]:
    refusal = REFUSALS.get(kind) or Refusal(kind, kind.title)
    return envelope(refusal) if in_envelope else problem_object(refusal)


def _document(api: FastAPI, *, locked: bool) -> dict[str, Any]:
    document = get_openapi(
        title=api.title, version=api.version, description=DESCRIPTION, routes=api.routes, tags=TAGS
    )  # fmt: skip
    parts = document.setdefault("components", {})
    parts["schemas"] = _schemas()  # instead of FastAPI's own description of errors, which nobody answers with
    parts["headers"] = dict(HEADERS)
    words = "One of `API_TOKENS`. Where that is not set, none is asked for."
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": words}}
    document["security"] = [{"token": []}] if locked else [{}, {"token": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return document


def _schemas() -> dict[str, Any]:
    shown_models = [
        model
        for model in (vars(schemas) | vars(fleet_schema)).values()
        if isinstance(model, type) and issubclass(model, Described)
    ]
    _, found = models_json_schema(
        [(JobRequest, "validation"), *((model, "serialization") for model in shown_models if model is not Described)],
        ref_template="#/components/schemas/{model}",
    )
    defined: dict[str, Any] = found["$defs"]
    return defined


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Add to an operation what all of them share: what the guard answers, what a bug does, the headers."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    errors = envelopes if GATEWAY_PATH.fullmatch(path) else problems
    guards = () if operation.get("security") == [] else (Kind.UNAUTHORIZED,)
    shared = errors(*guards, Kind.FORBIDDEN_HOST, Kind.FORBIDDEN_ORIGIN, Kind.INTERNAL_ERROR)
    for status, answer in shared.items():
        responses.setdefault(str(status), answer)
    operation["responses"] = dict(sorted(responses.items()))
    for status, answer in operation["responses"].items():
        sent = ("X-Request-Id", *SENT_WITH.get(status, ()))
        answer["headers"] = answer.get("headers", {}) | {
            name: {"$ref": f"#/components/headers/{name}"} for name in sent
        }
        for content in answer.get("content", {}).values():
            name = content.get("schema", {}).get("$ref", "").removeprefix(SCHEMAS)
            if name in EXAMPLES:  # not earlier: FastAPI drops what is null
                content["examples"] = _named(EXAMPLES[name])
