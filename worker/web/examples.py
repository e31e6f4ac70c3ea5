"""Owns the examples that readers of the API's description see, of requests, answers and refusals; data only."""

from collections.abc import Mapping
from typing import Any

from jobs.job import MEND_IT
from jobs.request import Fault
from worker.memory import RedisMemory
from worker.web.problems import MEND, Kind, Refusal, problem_object

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
LEAST_EXAMPLE = {"kind": "image", "input": {"prompt": "a lighthouse at dusk"}}
SUBMISSION_EXAMPLES: Mapping[str, dict[str, Any]] = {
    "video": {"model": "veo3", "prompt": "a lighthouse at dusk", "aspect_ratio": "16:9"},
    "image": {"model": "google/imagen4", "prompt": "a lighthouse at dusk"},
    "music": {"model": "suno-v4", "prompt": "a shanty about a lighthouse"},
    "audio": {"model": "elevenlabs/sound-effect-v2", "prompt": "waves on rocks", "duration_seconds": 5},
    "voice": {"model": "elevenlabs/text-to-speech-turbo-2-5", "text": "The lamp is lit.", "voice": "Rachel"},
}

_FAILURE = {
    "code": "generation_failed",
    "category": "retryable",
    "action": "fail_over",
    "http_status": 200,
    "gateway_code": "500",
    "message": "Internal error, please try again later",
    "rule": "generation_failed",
}
_PARKED = {
    "code": "model_quota_exceeded",
    "category": "retryable",
    "action": "park",
    "http_status": 429,
    "gateway_code": "daily_request_limit_exceeded",
    "message": "Bu model için tanımlanan günlük istek sayısı sınırına ulaştınız.",  # noqa: RUF001 - Turkish
    "rule": "daily_request_limit",
}
_FIRST_ATTEMPT = {
    "number": 1,
    "model": "veo3",
    "task_id": "vtask_7",
    "started_at": "2026-03-02T18:20:04.310Z",
    "ended_at": "2026-03-02T18:21:29.871Z",
    "outcome": "failed",
    "failure": _FAILURE,
    "polls": 9,
    "cost": None,
}
_SECOND_ATTEMPT = {
    "number": 2,
    "model": "sora-2",
    "task_id": "vtask_9",
    "started_at": "2026-03-02T18:21:31.046Z",
    "ended_at": "2026-03-02T18:23:12.500Z",
    "outcome": "succeeded",
    "failure": None,
    "polls": 11,
    "cost": {"amount": 0.3, "currency": "USD"},
}
_RESULT = {
    "urls": ["https://cdn.example/vtask_9.mp4"],
    "expires_at": "2026-03-03T18:23:12.500Z",
    "raw": {"status": "completed", "video_url": "https://cdn.example/vtask_9.mp4"},
}
COMPLETED_EXAMPLE = {
    "id": "order-1841",
    "kind": "video",
    "status": "completed",
    "requested_model": "veo3",
    "model": "sora-2",
    "fallbacks": ["sora-2"],
    "task_id": "vtask_9",
    "degraded": True,
    "attempts": [_FIRST_ATTEMPT, _SECOND_ATTEMPT],
    "partial": None,
    "result": _RESULT,
    "failure": None,
    "created_at": "2026-03-02T18:20:04.289Z",
    "updated_at": "2026-03-02T18:23:12.500Z",
    "completed_at": "2026-03-02T18:23:12.500Z",
    "deadline_at": "2026-03-02T19:20:04.289Z",
    "next_action_at": None,
    "metadata": {"customer": 77},
}
_NOT_YET: dict[str, Any] = {"task_id": None, "degraded": False, "attempts": [], "result": None, "completed_at": None}
WAITING_EXAMPLE = COMPLETED_EXAMPLE | _NOT_YET | {
    "status": "waiting",
    "model": "veo3",
    "fallbacks": [],
    "failure": _PARKED,
    "updated_at": "2026-03-02T18:20:04.310Z",
    "deadline_at": "2026-03-04T18:20:04.289Z",
    "next_action_at": "2026-03-02T21:00:00.000Z",
}  # fmt: skip
QUEUED_EXAMPLE = COMPLETED_EXAMPLE | _NOT_YET | {
    "status": "queued",
    "model": "veo3",
    "updated_at": "2026-03-02T18:20:04.289Z",
    "next_action_at": "2026-03-02T18:20:04.289Z",
}  # fmt: skip
_TRACK = {"urls": ["https://cdn.example/mtask_4/0.mp3"], "at": "2026-03-02T18:21:44.120Z"}
FIRST_TRACK_EXAMPLE = COMPLETED_EXAMPLE | _NOT_YET | {
    "kind": "music",
    "status": "processing",
    "requested_model": "suno-v4",
    "model": "suno-v4",
    "fallbacks": [],
    "task_id": "mtask_4",
    "attempts": [
        _SECOND_ATTEMPT
        | {"number": 1, "model": "suno-v4", "task_id": "mtask_4", "started_at": "2026-03-02T18:20:04.310Z"}
        | {"ended_at": None, "outcome": None, "polls": 8, "cost": None, "partial_result": _TRACK}
    ],
    "partial": _TRACK,
    "updated_at": "2026-03-02T18:21:44.120Z",
}  # fmt: skip
TIMELINE_EXAMPLE = [
    {"at": "2026-03-02T18:20:04.289Z", "event": "job.created"},
    {"at": "2026-03-02T18:20:04.420Z", "event": "task.accepted", "attempt": 1, "model": "veo3", "task_id": "vtask_7"},
    {
        "at": "2026-03-02T18:21:29.871Z",
        "event": "job.failed_over",
        "attempt": 1,
        "model": "veo3",
        "to_model": "sora-2",
        "code": "generation_failed",
    },
    {"at": "2026-03-02T18:21:31.190Z", "event": "task.accepted", "attempt": 2, "model": "sora-2", "task_id": "vtask_9"},
    {"at": "2026-03-02T18:23:12.500Z", "event": "job.completed", "attempt": 2, "model": "sora-2"},
]

DELIVERY_EXAMPLE = {
    "id": "dlv_81c9",
    "event_id": "evt_42d0",
    "type": "job.completed",
    "job_id": "order-1841",
    "url": "https://shop.example/hooks/media",
    "state": "delivered",
    "created_at": "2026-03-02T18:23:12.500Z",
    "next_attempt_at": None,
    "attempts": [
        {
            "at": "2026-03-02T18:23:12.731Z",
            "duration_ms": 212,
            "status": 500,
            "answer": "try later",
            "next_at": "2026-03-02T18:23:17.792Z",
        },
        {"at": "2026-03-02T18:23:17.940Z", "duration_ms": 148, "status": 200, "answer": "ok", "next_at": None},
    ],
}
EVENT_EXAMPLE = {
    "id": "evt_42d0",
    "sequence": 1730,
    "type": "job.completed",
    "timestamp": "2026-03-02T18:23:12.500Z",
    "data": COMPLETED_EXAMPLE,
}
_WORKER = {
    "id": "wrk_07",
    "host": "media-1",
    "pid": 4711,
    "started_at": "2026-03-02T06:00:00.000Z",
    "seen_at": "2026-03-02T18:23:10.000Z",
    "alive": True,
    "in_flight": 3,
    "concurrency": 100,
}
_QUEUE = {"name": "submit:video", "kind": "video", "depth": 12, "due": 2, "oldest_s": 1.4, "paused_since": None}
FLEET_EXAMPLE = {
    "at": "2026-03-02T18:23:12.900Z",
    "queues": [_QUEUE],
    "jobs": {"video": {"processing": 7, "waiting": 5, "completed": 90}},
    "hold": None,
    "rate_limited_until": None,
    "learned_limit": {"requests": 60, "per_s": 60},
    "cooldowns": [{"model": "veo3", "until": "2026-03-02T21:00:00.000Z"}],
    "workers": [_WORKER],
    "webhooks": {"pending": 1, "delivered": 101, "dead": 0},
    "failing_destinations": [
        {
            "destination": "https://shop.example:443/hooks/media",
            "failing_since": "2026-03-02T18:20:01.300Z",
            "failures": 12,
            "waiting": 1,
            "next_try_at": "2026-03-02T18:23:20.100Z",
        }
    ],
    "quarantined": 0,
    "redis_memory": {"used_bytes": 52428800, "max_bytes": 1073741824, "takes_jobs": True, "begins_submissions": True},
    "money": {
        "paid_unused": {
            "total": 2,
            "reasons": {"late_success": 1, "never_ended": 0, "maybe_paid": 1},
            "models": {"veo3": 2},
            "cost": {"USD": 0.3},
        },
        "unknown_submits": {
            "total": 3,
            "resent": 2,
            "failed": 1,
            "canceled": 0,
            "completed": 0,
            "accepted": 0,
            "refused": 0,
        },
    },
}
MODEL_EXAMPLE = {
    "model": "veo3",
    "kinds": ["video"],
    "chain": "text-to-video",
    "position": 1,
    "alternates": ["sora-2"],
    "status": "cooling",
    "cooldown_until": "2026-03-02T21:00:00.000Z",
    "failures_in_a_row": 1,
    "last_success_at": "2026-03-02T18:02:40.007Z",
    "last_failure_at": "2026-03-02T18:21:29.871Z",
    "attempts": {"succeeded": 90, "failed": 4},
    "failures": {"generation_failed": 4},
    "generation_s": {"count": 90, "mean": 78.2, "p50": 74.0, "p95": 121.5},
}

_INVALID = Refusal(
    Kind.INVALID_REQUEST, MEND, errors=[Fault("kind", "must be 'video', 'image', 'music', 'audio' or 'voice'")]
)
_REPEAT = "it is not known whether the job was made: repeat the request with this 'id', which makes at most one"
_UNKNOWN = Refusal(Kind.UNAVAILABLE, _REPEAT, members={"id": "job_5a1f0c9e7b3d48266ff1e0a4"})
_TASK = {"task_id": "order-1841", "status": "processing", "result": None, "error": None}
_TASK_ERROR = {"code": "content_rejected", "message": "Content review failed. Please adjust the input and try again."}

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "JobView": {
        "queued": QUEUED_EXAMPLE,
        "waiting": WAITING_EXAMPLE,
        "first_track": FIRST_TRACK_EXAMPLE,
        "completed": COMPLETED_EXAMPLE,
    },
    "JobDetail": {
        "completed": COMPLETED_EXAMPLE | {"timeline": TIMELINE_EXAMPLE, "hindrances": []},
        "waiting": WAITING_EXAMPLE
        | {"timeline": TIMELINE_EXAMPLE[:1], "hindrances": ["veo3 is at its limit until 2026-03-02T21:00:00.000Z"]},
    },
    "BatchAnswer": {
        "mixed": {
            "results": [
                {"status": 202, "job": QUEUED_EXAMPLE},
                {"status": 422, "problem": problem_object(_INVALID)},
                {"status": 503, "problem": problem_object(_UNKNOWN)},
            ]
        }
    },
    "State": {"alive": {"status": "ok"}, "ready": {"status": "ready"}},
    "JobPage": {"page": {"jobs": [COMPLETED_EXAMPLE], "next_cursor": "1730"}},
    "DeliveryView": {"pending": DELIVERY_EXAMPLE | {"state": "pending", "next_attempt_at": "2026-03-02T18:28:13.120Z"}},
    "Deliveries": {"delivered": {"deliveries": [DELIVERY_EXAMPLE]}},
    "EventPage": {"page": {"events": [EVENT_EXAMPLE], "next_cursor": "1730"}},
    "FleetView": {"busy": FLEET_EXAMPLE},
    "ModelsView": {"cooling": {"models": [MODEL_EXAMPLE]}},
    "PauseView": {"paused": {"kind": "video", "paused": True, "changed": True}},
    "TaskTaken": {"taken": {"success": True, "data": {"task_id": "order-1841", "status": "processing"}}},
    "TaskShown": {
        "processing": {"success": True, "data": _TASK},
        "completed": {
            "success": True,
            "data": {**_TASK, "status": "completed", "result": {"urls": ["https://cdn.example/vtask_9.mp4"]}},
        },
        "failed": {"success": True, "data": {**_TASK, "status": "failed", "error": _TASK_ERROR}},
    },
}
"""Examples by the name of their schema: they go wherever it is shown."""

REFUSALS: Mapping[Kind, Refusal] = {
    Kind.INVALID_REQUEST: _INVALID,
    Kind.UNAVAILABLE: _UNKNOWN,
    Kind.STORAGE_FULL: Refusal(Kind.STORAGE_FULL, RedisMemory(1_960_000_000, 2_147_483_648).words),
    Kind.INVALID_FORMAT: Refusal(Kind.INVALID_FORMAT, "name the model", errors=[Fault("model", "is required")]),
    **{
        kind: Refusal(kind, detail)
        for kind, detail in (
            (Kind.INVALID_JSON, "send one JSON object; the error is at line 1, column 2"),
            (Kind.UNAUTHORIZED, "send one of API_TOKENS in the Authorization header, as a bearer token"),
            (Kind.FORBIDDEN_HOST, "call it localhost or 127.0.0.1; set API_TOKENS to serve other names"),
            (Kind.FORBIDDEN_ORIGIN, "call it from this machine; set API_TOKENS to serve others"),
            (Kind.NOT_FOUND, "no such job: it was never made, or is gone RETENTION_S after its end"),
            (Kind.TASK_NOT_FOUND, "no such task: it was never made, or is gone RETENTION_S after its end"),
            (Kind.REQUEST_TIMEOUT, "send the body without pauses"),
            (Kind.PAYLOAD_TOO_LARGE, "send at most 11 MB; larger media belong behind a URL"),
            (Kind.UNSUPPORTED_MEDIA_TYPE, "send the body as Content-Type: application/json"),
            (Kind.WRONG_STATUS, "the job is completed: only a failed or canceled one can be retried"),
            (
                Kind.CURSOR_EXPIRED,
                "events after it are no longer kept: start again without a cursor, and list the jobs",
            ),
            (
                Kind.RECORD_DAMAGED,
                f"the record of job order-1841 cannot be read: KeyError: 'spec'; {MEND_IT}",
            ),
            (
                Kind.NEWER_VERSION,
                "job order-1841 was written by a newer version: ask one of that version",
            ),
            (Kind.METHOD_NOT_ALLOWED, "allowed here: GET, HEAD"),
            (Kind.INTERNAL_ERROR, "the log has it under this answer's X-Request-Id"),
            (
                Kind.CONFLICT,
                "id: order-1841 is taken by a job with a different request; send the same request or a new id",
            ),
        )
    },
}
