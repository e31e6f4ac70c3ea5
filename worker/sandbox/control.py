"""The control API's bodies: reads what `POST /sandbox/control` changes and shows the books. No I/O.

Settings: `faults`, `seed`, `speed`; `balance` (USD, null for no floor); `requests_per_minute` (or null; over
`minute_s`, look-ups counted too with `limit_lookups`); `blocked_models` (403), `unsupported_models` (422),
`extra_models` (accepted); `quotas`, an object `{model: {"code", "limit", "retry_after_s", "resets_in_s"}}`, each gone
after its reset; `outage` (null, `503`, `hang`, or `refuse`: for `outage_s` nothing listens, and only the connection
that asked stays open); `deduplicate` (a key seen before is answered with its first task).
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from worker.sandbox.account import Quota
from worker.sandbox.catalog import CURRENCY
from worker.sandbox.errors import QUOTA_CODES
from worker.sandbox.faults import MIXES
from worker.sandbox.gateway import Gateway, now_ms
from worker.sandbox.ledger import Submission, Task

MICROS = 1_000_000
OUTAGES = (None, "503", "refuse", "hang")


class ControlError(ValueError):
    """The control request is wrong."""


def change(gateway: Gateway, body: Any) -> dict[str, Any]:
    """Apply every key of `body`, or none of them; answer with the settings as they are now. Raises ControlError."""
    if not isinstance(body, dict):
        raise ControlError("the body must be an object")
    unknown = sorted(body.keys() - _READERS.keys() - {"balance"})
    if unknown:
        raise ControlError(f"no such setting: {', '.join(unknown)}; known: balance, {', '.join(sorted(_READERS))}")
    values = {name: _READERS[name](name, value) for name, value in body.items() if name != "balance"}
    if "balance" in body:
        balance = body["balance"]
        gateway.ledger.settle(now_ms())
        gateway.ledger.balance_micros = None if balance is None else round(_number("balance", balance) * MICROS)
    for name, value in values.items():
        setattr(gateway.settings, name, value)
    if "faults" in values:
        gateway.account.shut.clear()
    if "requests_per_minute" in values or "minute_s" in values:
        gateway.account.window_ends_at_ms = 0.0
    return show(gateway)


def show(gateway: Gateway) -> dict[str, Any]:
    """Show the settings in force."""
    settings = asdict(gateway.settings)
    for name, value in settings.items():
        if isinstance(value, frozenset):
            settings[name] = sorted(value)
    return settings | {"balance": _amount(gateway.ledger.balance_micros)}


def stats(gateway: Gateway) -> dict[str, Any]:
    """Show all counters, by model too."""
    books = gateway.ledger
    books.settle(now_ms())
    models = books.models.values()
    ended = sum(row.succeeded + row.failed for row in models)
    return {
        "faults": gateway.settings.faults,
        "seed": gateway.settings.seed,
        "speed": gateway.settings.speed,
        "submissions": books.seen,
        "accepted": books.accepted,
        "accepted_unanswered": books.accepted_unanswered,
        "dropped": books.dropped,
        "refused": sum(books.refused.values()),
        "refused_by_status": dict(books.refused),
        "lookups": books.lookups,
        "lookups_by_status": dict(books.lookups_answered),
        "billed_tasks": books.accepted,
        "refunded_tasks": books.refunds,
        "billed": _money(sum(row.billed_micros for row in models)),
        "refunded": _money(sum(row.refunded_micros for row in models)),
        "balance": _amount(books.balance_micros),
        "duplicate_keys": books.duplicate_keys,
        "duplicate_tags": books.duplicate_tags,
        "double_billed": books.double_billed,
        "running": books.accepted - ended,
        "succeeded": sum(row.succeeded for row in models),
        "failed": sum(row.failed for row in models),
        "per_model": {name: _model_row(asdict(row)) for name, row in books.models.items()},
    }


def tasks(gateway: Gateway, query: dict[str, str]) -> dict[str, Any]:
    """List tasks, oldest first; `tag`, `model`, `state` narrow the list, `limit` keeps the newest."""
    at_ms = now_ms()
    gateway.ledger.settle(at_ms)
    rows = [_task_row(task, at_ms) for task in gateway.ledger.tasks.values()]
    return {"tasks": _narrow(rows, query, "tag", "model", "state")}


def submissions(gateway: Gateway, query: dict[str, str]) -> dict[str, Any]:
    """List every POST seen, oldest first; `tag`, `model` narrow the list, `limit` keeps the newest."""
    rows = [_submission_row(row) for row in gateway.ledger.submissions]
    return {"submissions": _narrow(rows, query, "tag", "model")}


def _narrow(rows: list[dict[str, Any]], query: dict[str, str], *names: str) -> list[dict[str, Any]]:
    for name in names:
        if name in query:
            rows = [row for row in rows if row[name] == query[name]]
    limit = query.get("limit", "")
    return rows[-int(limit) :] if limit.isdigit() and int(limit) else rows


def _model_row(row: dict[str, Any]) -> dict[str, Any]:
    row["billed"] = _money(row.pop("billed_micros"))
    row["refunded_amount"] = _money(row.pop("refunded_micros"))
    return row


def _task_row(task: Task, at_ms: int) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "alias": task.alias,
        "model": task.model.id,
        "idempotency_key": task.key,
        "tag": task.tag,
        "submitted_at_ms": task.submitted_at_ms,
        "ends_at_ms": None if task.outcome.kind == "never" else task.ends_at_ms,
        "state": task.state(at_ms),
        "final_at_ms": None if task.outcome.kind == "never" else task.final_at_ms,
        "told_fail_at_ms": task.told_fail_at_ms,
        "told_success_at_ms": task.told_success_at_ms,
        "outcome": task.outcome.kind,
        "code": task.outcome.code,
        "message": task.outcome.message,
        "billed": _money(task.model.price_micros),
        "refunded": task.refunded,
        "lookups": task.lookups,
    }


def _submission_row(row: Submission) -> dict[str, Any]:
    return {
        "at_ms": row.at_ms,
        "alias": row.alias,
        "model": row.model,
        "idempotency_key": row.key,
        "tag": row.tag,
        "status": row.answered,
        "step": row.how,
        "code": row.code,
        "retry_after_s": row.retry_after_s,
        "sent_at_ms": row.sent_at_ms,
        "client_left": row.client_left,
        "task_id": row.task_id or None,
    }


def _amount(micros: int | None) -> float | None:
    return None if micros is None else micros / MICROS


def _money(micros: int) -> dict[str, Any]:
    return {"amount": micros / MICROS, "currency": CURRENCY}


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e12:
        raise ControlError(f"{name} must be a number, 0 or more")
    return float(value)


def _positive(name: str, value: Any) -> float:
    if not _number(name, value):
        raise ControlError(f"{name} must be over 0")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ControlError(f"{name} must be an integer, 0 or more")
    return value


def _count_or_null(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ControlError(f"{name} must be true or false")
    return value


def _names(name: str, value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(row, str) for row in value):
        raise ControlError(f"{name} must be a list of model ids")
    return frozenset(value)


def _mix(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in MIXES:
        raise ControlError(f"{name} must be one of {', '.join(MIXES)}")
    return value


def _outage(name: str, value: Any) -> str | None:
    if value not in OUTAGES or not isinstance(value, str | None):
        raise ControlError(f'{name} must be null, "503", "refuse" or "hang"')
    return value


def _quotas(name: str, value: Any) -> dict[str, Quota]:
    if not isinstance(value, dict):
        raise ControlError(f"{name} must be an object of quotas per model")
    return {model: _quota(f"{name}.{model}", row) for model, row in value.items()}


def _quota(name: str, value: Any) -> Quota:
    known = {"code", "limit", "retry_after_s", "resets_in_s"}
    if not isinstance(value, dict) or not value.keys() <= known:
        raise ControlError(f"{name} must be an object of {', '.join(sorted(known))}")
    if value.get("code") not in QUOTA_CODES:
        raise ControlError(f"{name}.code must be one of {', '.join(QUOTA_CODES)}")
    retry_after_s, resets_in_s = value.get("retry_after_s"), value.get("resets_in_s")
    return Quota(
        code=value["code"],
        limit=_count(f"{name}.limit", value.get("limit", 0)),
        retry_after_s=None if retry_after_s is None else _number(f"{name}.retry_after_s", retry_after_s),
        lifted_at_ms=(
            float("inf") if resets_in_s is None else now_ms() + 1000 * _number(f"{name}.resets_in_s", resets_in_s)
        ),
    )


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "faults": _mix,
    "seed": _count,
    "speed": _positive,
    "requests_per_minute": _count_or_null,
    "minute_s": _positive,
    "limit_lookups": _flag,
    "blocked_models": _names,
    "unsupported_models": _names,
    "extra_models": _names,
    "quotas": _quotas,
    "outage": _outage,
    "outage_s": _positive,
    "deduplicate": _flag,
}
