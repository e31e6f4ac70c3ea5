"""Owns what a worker keeps on its own disk: accepted tasks that Redis could not take yet.

An accepted task is paid for, and its id is known to nobody else. While Redis is away it lies here, a file each, so that
neither SIGTERM nor SIGKILL loses it; whichever worker next uses the directory stores it. Storing twice is harmless.

A file is written beside its name and moved there, synced: it is whole or not there. One whose job is gone from Redis
(an older state was restored, say) is set aside for the operator, never deleted.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.log import log
from jobs.job import Attempt, attempt_form, read_attempt
from worker.link import unreadable
from worker.record import UNSHOWABLE

FOLDER = "accepted"
KEPT, ASIDE = ".json", ".jobless"


@dataclass(frozen=True, slots=True)
class SpooledTask:
    """A task the gateway has accepted: the submission as it was ``sent``, its ``task_id``, and what it cost."""

    job_id: str
    sent: Attempt
    task_id: str
    cost: Any


class Spool:
    """The accepted tasks kept in a data directory by workers with this key prefix. No method raises."""

    def __init__(self, data_dir: Path, *, prefix: str) -> None:
        self._folder = data_dir / FOLDER
        self._prefix = prefix
        self._known: set[Path] = set()

    def keep(self, task: SpooledTask) -> None:
        """Write a task to disk; safe to repeat."""
        path = self._path(task)
        form = {
            "prefix": self._prefix,
            "job_id": task.job_id,
            "task_id": task.task_id,
            "cost": task.cost,
            "sent": attempt_form(task.sent),
        }
        try:
            if path in self._known and path.exists():
                return
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_suffix(f".{os.getpid()}")
            with draft.open("w") as file:
                json.dump(form, file)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            self._known.add(path)
            self._sync_folder()
        except OSError as error:
            log.error(
                "task.not_spooled", job=task.job_id, task=task.task_id, folder=str(self._folder), error=str(error)
            )
        else:
            log.warning("task.spooled", job=task.job_id, task=task.task_id, folder=str(self._folder))

    def drop(self, task: SpooledTask) -> None:
        """Delete a task that is stored, if it was kept; safe to repeat."""
        if not self._known:
            return
        path = self._path(task)
        for each in {path, path.with_suffix(ASIDE)} & self._known:
            self._known.discard(each)
            with suppress(OSError):
                each.unlink(missing_ok=True)

    def set_aside(self, task: SpooledTask) -> bool:
        """Leave a task whose job is gone to the operator; tell whether it had not been. Safe to repeat."""
        path = self._path(task)
        aside = path.with_suffix(ASIDE)
        if aside.exists():
            return False
        self.keep(task)
        self._known.discard(path)
        with suppress(OSError):
            path.rename(aside)
        return True

    def tasks(self, *, with_aside: bool = False) -> Iterator[SpooledTask]:
        """Read what is kept, and what was set aside where wanted; a file that is none of ours is left where it is."""
        for path in [*self._files(KEPT), *(self._files(ASIDE) if with_aside else ())]:
            try:
                form = json.loads(path.read_text())
                if form["prefix"] == self._prefix:
                    sent = read_attempt(form["sent"])
                    self._known.add(path)
                    yield SpooledTask(str(form["job_id"]), sent, str(form["task_id"]), form.get("cost"))
            except FileNotFoundError:
                continue  # another worker has stored it
            except (OSError, *UNSHOWABLE) as error:
                unreadable("spool", path.name, f"{type(error).__name__}: {error}")

    def counts(self) -> tuple[int, int]:
        """Count the tasks that wait to be stored, and those that were set aside."""
        return len(self._files(KEPT)), len(self._files(ASIDE))

    def _files(self, suffix: str) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == suffix)
        except OSError:
            return []

    def _path(self, task: SpooledTask) -> Path:
        named = f"{self._prefix}\n{task.job_id}\n{task.sent.key}\n{task.task_id}"
        return self._folder / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}{KEPT}"

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
