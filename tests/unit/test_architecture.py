"""The house: which way imports run, and what only one module may touch."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("config", "jobs", "worker") for path in (ROOT / room).rglob("*.py"))
MAY_IMPORT = {"config": {"config"}, "jobs": {"config", "jobs"}, "worker": {"config", "jobs", "worker"}}
ONLY_USERS = {
    "arq": {"worker/intake.py", "worker/arq_queue.py", "worker/client/line.py", "worker/demo/doors.py"},
    "redis": {
        "worker/link.py",
        "worker/intake.py",
        "worker/arq_queue.py",
        "worker/client/line.py",
        "worker/embedded.py",
    },
    "aiohttp": {"worker/transport.py", "worker/deliver.py"},
}
IMPURE = {"redis", "httpx", "aiohttp", "arq", "asyncio", "time", "structlog", "os", "subprocess"}
LEAVES = ("worker.cli", "worker.web", "worker.sandbox", "worker.demo", "worker.client")


def imports(path: Path) -> set[str]:
    """Name every module a file imports, dotted."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    """Config knows nobody, jobs know config, workers know both, and nobody knows the tests."""
    room = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imports(path)} & {"config", "jobs", "worker", "tests", "bench"}
    assert ours <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_has_its_only_users(path: Path) -> None:
    """Redis, arq and aiohttp stay behind the modules that own them."""
    name = str(path.relative_to(ROOT))
    if name.startswith("worker/sandbox/"):
        return
    used = {imported.split(".")[0] for imported in imports(path)}
    assert "typer" not in used or name.startswith("worker/cli/"), f"{name} imports typer"
    for library, users in ONLY_USERS.items():
        assert library not in used or name in users, f"{name} imports {library}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name == "jobs"], ids=lambda path: path.name)
def test_jobs_are_pure(path: Path) -> None:
    """No I/O, no clock, no event loop in jobs."""
    assert not {name.split(".")[0] for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_environment_has_one_reader(path: Path) -> None:
    """``os.environ`` is read in config/settings.py; the demo and the embedded server hand one on to their children."""
    name = str(path.relative_to(ROOT))
    reads = "os.environ" in path.read_text() or "getenv" in path.read_text()
    assert not reads or name in {"config/settings.py", "worker/embedded.py", "worker/demo/run.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_leaves_are_imported_by_nobody(path: Path) -> None:
    """The doors and the sandbox are leaves: only the entry points know them."""
    name = str(path.relative_to(ROOT))
    if name in {"worker/__main__.py", "worker/main.py"} or name.startswith("worker/cli/"):
        return
    for leaf in LEAVES:
        if not name.startswith(leaf.replace(".", "/")):
            assert not any(imported == leaf or imported.startswith(f"{leaf}.") for imported in imports(path))


def test_the_sandbox_shares_no_code() -> None:
    """The sandbox is reached by URL only: it imports nothing of the rest."""
    for path in (ROOT / "worker" / "sandbox").rglob("*.py"):
        ours = {name for name in imports(path) if name.split(".")[0] in {"config", "jobs", "worker"}}
        assert all(name.startswith("worker.sandbox") for name in ours), path.name


def test_the_client_works_beside_any_packages() -> None:
    """The Python client and all of ours that it imports need the standard library, redis, arq and the worker's folder.

    A backend may have a ``config`` and a ``jobs`` of its own, and these must be the only ones.
    """
    may_import = {*sys.stdlib_module_names, "redis", "arq", "worker"}
    seen, ahead = set(), [ROOT / "worker" / "__init__.py", ROOT / "worker" / "client" / "__init__.py"]
    while ahead:
        path = ahead.pop()
        seen.add(path)
        names = imports(path)
        assert {name.split(".")[0] for name in names} <= may_import, path.name
        ours = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names if name.startswith("worker.")}
        ahead += [found for found in ours - seen if found.exists()]
    assert {path.name for path in seen} >= {"client.py", "line.py", "keys.py", "record.py"}


@pytest.mark.parametrize("path", [*SOURCES, *(ROOT / "worker" / "lua").glob("*.lua")], ids=lambda path: path.name)
def test_nothing_goes_through_the_keys(path: Path) -> None:
    """No command that takes longer the more keys there are: what is looked for stands in an index."""
    assert not re.search(r"""["'](KEYS|SCAN|SSCAN|HSCAN|ZSCAN|SORT|RANDOMKEY)["']""", path.read_text(), re.IGNORECASE)
