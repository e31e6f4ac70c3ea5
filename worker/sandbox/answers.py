"""Wire shapes: what the gateway writes for an acceptance, a refusal and every stage of a task.

Sources: the vendor's error envelope; the shapes of KieAI's, Suno's and Veo's public look-ups, as docs/gateway.md lists
them. The 202 body is not published; the one here is assumed. Pure: text and clock readings in, bytes out.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from worker.sandbox.catalog import CURRENCY
from worker.sandbox.errors import ERRORS
from worker.sandbox.fate import Step
from worker.sandbox.ledger import Submission, Task

JSON = "application/json"
HTML = "text/html; charset=utf-8"
BIG_BYTES = 3 * 1024 * 1024
CDN = "https://cdn.sandbox.invalid"

Then = Literal["send", "close", "reset", "hang", "half", "slow"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, or what happens to the connection instead of one.

    `entry` is the books' row of the submission that is answered: there it is noted when that was done.
    """

    status: int
    body: bytes
    content_type: str = JSON
    retry_after_s: float | None = None
    then: Then = "send"
    delay_s: float = 0.0
    entry: Submission | None = None

    @property
    def answered(self) -> int | None:
        """The status the caller gets to see whole, or None."""
        return None if self.then in {"close", "reset", "hang"} else self.status


def dump(body: Any) -> bytes:
    """Write compact UTF-8 JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def refused(code: str, retry_after_s: float | None = None, detail: str = "") -> Answer:
    """Refuse with a code of the vendor's table; `detail` follows the message."""
    status, message = ERRORS[code]
    return enveloped(status, code, f"{message} {detail}" if detail else message, retry_after_s)


def enveloped(status: int, code: str | int, message: str, retry_after_s: float | None = None) -> Answer:
    """Refuse in the vendor's envelope; an empty code is left out, as in the vendor's table."""
    error = {"code": code, "message": message} if code else {"message": message}
    return Answer(status, dump({"success": False, "error": error}), retry_after_s=retry_after_s)


def page(status: int, retry_after_s: float | None = None) -> Answer:
    """Answer as a proxy in front of the gateway does."""
    text = f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center>nginx</body></html>"
    return Answer(status, text.encode(), HTML, retry_after_s)


NO_USER_AGENT = Answer(403, b"error code: 1010", "text/plain; charset=UTF-8")


def accepted(task_id: str, name: str) -> Answer:
    """Answer a submission whose task exists, the way the submit step `name` asks for."""
    plain = {"success": True, "data": {"task_id": task_id, "status": "processing"}}
    match name:
        case "accept_camel":
            return Answer(200, dump({"code": 200, "msg": "success", "data": {"taskId": task_id}}))
        case "accept_bare":
            return Answer(202, dump({"id": int(task_id)}))
        case "accept_garbage":
            return Answer(202, dump(plain)[:-14])
        case "big":
            return Answer(202, dump({"padding": "x" * BIG_BYTES, **plain}))
        case _:
            return Answer(202, dump(plain), then=_THEN.get(name, "send"))


_THEN: dict[str, Then] = {
    "accept_then_close": "close",
    "accept_then_reset": "reset",
    "accept_then_hang": "hang",
    "accept_half_body": "half",
    "accept_slow_body": "slow",
    "close_before": "close",
    "reset_before": "reset",
    "hang_before": "hang",
    "close": "close",
    "reset": "reset",
    "hang": "hang",
    "half_body": "half",
    "slow_body": "slow",
}


def stepped(step: Step, task_id: str) -> Answer | None:
    """Answer a step that says everything itself, or None for one that is about a task."""
    write = _STEPPED.get(step.name)
    return write(step, task_id) if write is not None else None


def _verbatim(step: Step, task_id: str) -> Answer:
    return Answer(step.status, step.raw.replace("{task_id}", task_id).encode(), step.content_type)


def _despite(step: Step, task_id: str) -> Answer:
    """Report an error although the task exists: its id stands beside the error."""
    code = step.code or "internal_error"
    error = {"code": code, "message": step.message or ERRORS["internal_error"][1]}
    return Answer(step.status or 500, dump({"success": False, "error": error, "data": {"task_id": task_id}}))


def _unanswered(step: Step, _: str) -> Answer:
    return Answer(0, b"", then=_THEN[step.name])


_STEPPED: dict[str, Callable[[Step, str], Answer]] = {
    "refuse": lambda step, _: enveloped(step.status, step.code, step.message, step.retry_after_s),
    "inside_200": lambda step, _: Answer(200, dump({"code": step.code, "msg": step.message})),
    "html": lambda step, _: page(step.status or 502, step.retry_after_s),
    "error_with_task": _despite,
    "raw": _verbatim,
    "body": _verbatim,
    "empty": lambda _step, _: Answer(200, b""),
    "missing_404": lambda _step, _: refused("task_not_found"),
    "record_null": lambda _step, _: Answer(200, dump({"code": 422, "msg": "recordInfo is null"})),
    **dict.fromkeys(("close", "reset", "hang", "close_before", "reset_before", "hang_before"), _unanswered),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a task is: `part` of its duration is over; `code` and `message` tell of a failure."""

    state: Literal["running", "success", "fail"]
    part: float = 1.0
    code: str = ""
    message: str = ""
    word: str = ""
    urls: tuple[str, ...] = ()


def stage_of(task: Task, now_ms: int, word: str = "") -> Stage:
    """Say how far `task` is; a `word` stands in for the running state's name."""
    if word:
        return Stage("running", 0.5, word=word)
    state = task.state(now_ms)
    if state == "fail":
        return Stage("fail", code=task.outcome.code, message=task.outcome.message)
    if state == "running":
        age_ms, span_ms = now_ms - task.submitted_at_ms, max(1, task.ends_at_ms - task.submitted_at_ms)
        part = 0.6 if task.outcome.kind == "never" else age_ms / span_ms
        is_out = part > 0.7 if task.first_track_ms is None else age_ms >= task.first_track_ms
        return Stage("running", part, urls=_urls(task, 1) if is_out else ())
    return Stage("success", urls=() if task.outcome.kind == "done_without_url" else _urls(task, task.model.urls))


def _urls(task: Task, count: int) -> tuple[str, ...]:
    suffix = {"video": "mp4", "image": "png"}.get(task.model.alias, "mp3")
    return tuple(f"{CDN}/{task.id}/{number}.{suffix}" for number in range(count))


def looked_up(task: Task, stage: Stage, name: str = "normal") -> Answer:
    """Answer a look-up of `task` in its model's shape, the way the look-up step `name` asks for."""
    if task.outcome.kind == "body" and stage.state != "running":
        return Answer(200, task.outcome.raw.replace("{task_id}", task.id).encode())
    body = _SHAPES[task.model.shape](task, stage)
    if stage.state == "success" and task.expiry is not None:
        body.get("data", body).update(task.expiry)
    match name:
        case "truncated":
            text = dump(body)
            return Answer(200, text[: len(text) * 2 // 3])
        case "big":
            return Answer(200, dump({"padding": "x" * BIG_BYTES, **body}))
        case _:
            return Answer(200, dump(body), then=_THEN.get(name, "send"))


def _running_word(stage: Stage) -> str:
    return stage.word or ("waiting" if stage.part < 0.1 else "queuing" if stage.part < 0.25 else "generating")


def _word(stage: Stage) -> str:
    return _running_word(stage) if stage.state == "running" else stage.state


def _cost(task: Task) -> dict[str, Any]:
    return {"amount": task.model.price_micros / 1_000_000, "currency": CURRENCY}


def _plain(task: Task, stage: Stage) -> dict[str, Any]:
    data: dict[str, Any] = {"task_id": task.id, "status": _word(stage)}
    if stage.state == "success":
        data |= {"result": {"urls": list(stage.urls)}, "cost": _cost(task)}
    elif stage.state == "fail":
        data["error"] = {"code": stage.code, "message": stage.message}
    return {"success": True, "data": data}


def _kie(task: Task, stage: Stage) -> dict[str, Any]:
    done = stage.state == "success"
    data: dict[str, Any] = {
        "taskId": task.id,
        "model": task.model.id,
        "state": _word(stage),
        "param": {"input": {"image_url": task.echo_url}},
        "resultJson": json.dumps({"resultUrls": stage.urls}) if done else "",
        "failCode": stage.code,
        "failMsg": stage.message,
    }
    if done:
        data["creditsConsumed"] = task.model.price_micros // 5_000
    return {"code": 200, "msg": "success", "data": data}


def _veo(task: Task, stage: Stage) -> dict[str, Any]:
    data: dict[str, Any] = {"task_id": task.id, "successFlag": 0}
    if stage.word:
        data = {"task_id": task.id, "status": stage.word}
    elif stage.state == "success":
        data |= {"successFlag": 1, "resultUrls": list(stage.urls), "cost": _cost(task)}
    elif stage.state == "fail":
        data |= {"successFlag": 3 if stage.code == "501" else 2, "failCode": stage.code, "failMsg": stage.message}
    return {"success": True, "data": data}


def _suno(task: Task, stage: Stage) -> dict[str, Any]:
    shown = "FIRST_SUCCESS" if stage.urls else "PENDING" if stage.part < 0.3 else "TEXT_SUCCESS"
    running = stage.word or shown
    names = {"running": running, "success": "SUCCESS", "fail": "GENERATE_AUDIO_FAILED"}
    data: dict[str, Any] = {"task_id": task.id, "status": names[stage.state]}
    if stage.state == "fail":
        data["error"] = {"code": stage.code, "message": stage.message}
    elif stage.urls:
        data["result"] = {"tracks": [{"title": f"take {n}", "audio_url": url} for n, url in enumerate(stage.urls)]}
    if stage.state == "success":
        data["creditsConsumed"] = task.model.price_micros // 5_000
    return {"success": True, "data": data}


def _bare(task: Task, stage: Stage) -> dict[str, Any]:
    body: dict[str, Any] = {"id": task.id, "status": "completed" if stage.state == "success" else _word(stage)}
    if stage.state == "success":
        body |= {"output": list(stage.urls), "cost": _cost(task)}
    elif stage.state == "fail":
        body |= {"error": stage.message, "code": stage.code}
    return body


def _text(task: Task, stage: Stage) -> dict[str, Any]:
    body = _plain(task, stage)
    if stage.state == "success":
        text = f"Transcript of task {task.id}." if stage.urls else ""
        body["data"] |= {"result": {"text": text}}
    return body


_SHAPES: dict[str, Callable[[Task, Stage], dict[str, Any]]] = {
    "plain": _plain,
    "kie": _kie,
    "veo": _veo,
    "suno": _suno,
    "bare": _bare,
    "text": _text,
}
