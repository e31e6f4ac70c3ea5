"""The house: which way imports run, and what only one module may touch."""

import ast
import re
import sys
from functools import cache
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("config", "jobs", "worker")
SOURCES = {str(path.relative_to(ROOT)): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}
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
    "aiohttp": {"worker/transport.py", "worker/protocol.py", "worker/lookups.py"},
}
IMPURE = {"redis", "httpx", "aiohttp", "arq", "asyncio", "time", "structlog", "os", "subprocess"}
LEAVES = ("worker.cli", "worker.web", "worker.sandbox", "worker.demo", "worker.client")


@cache
def imports(path: Path) -> set[str]:
    """Name every module a file imports, dotted."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path: Path) -> set[str]:
    """Name the top level of every module a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def test_imports_run_one_way() -> None:
    """Config knows nobody, jobs know config, workers know both, and nobody knows the tests."""
    rooms = {"config", "jobs", "worker", "tests", "bench"}
    wrong = {name: packages(path) & rooms - MAY_IMPORT[name.split("/")[0]] for name, path in SOURCES.items()}
    assert {name: known for name, known in wrong.items() if known} == {}


def test_each_library_has_its_only_users() -> None:
    """Redis, arq and aiohttp stay behind the modules that own them, typer behind the command line."""
    wrong = [
        (name, library)
        for name, path in SOURCES.items()
        if not name.startswith("worker/sandbox/")
        for library in packages(path) & {*ONLY_USERS, "typer"}
        if not (name.startswith("worker/cli/") if library == "typer" else name in ONLY_USERS[library])
    ]
    assert wrong == []


def test_jobs_are_pure() -> None:
    """No I/O, no clock, no event loop in jobs."""
    pure = {name: path for name, path in SOURCES.items() if path.parent.name == "jobs"}
    assert len(pure) > 5
    assert {name: packages(path) & IMPURE for name, path in pure.items() if packages(path) & IMPURE} == {}


def test_the_environment_has_one_reader() -> None:
    """``os.environ`` is read in config/settings.py; the demo and the embedded server hand one on to their children."""
    texts = {name: path.read_text() for name, path in SOURCES.items()}
    readers = {name for name, text in texts.items() if "os.environ" in text or "getenv" in text}
    assert readers <= {"config/settings.py", "worker/embedded.py", "worker/demo/run.py"}


def test_leaves_are_imported_by_nobody() -> None:
    """The doors and the sandbox are leaves: only the entry points know them."""
    wrong = [
        (name, imported)
        for name, path in SOURCES.items()
        if name not in {"worker/__main__.py", "worker/main.py"} and not name.startswith("worker/cli/")
        for leaf, imported in product(LEAVES, imports(path))
        if not name.startswith(leaf.replace(".", "/")) and (imported == leaf or imported.startswith(f"{leaf}."))
    ]
    assert wrong == []


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


def test_nothing_goes_through_the_keys() -> None:
    """No command that takes longer the more keys there are: what is looked for stands in an index.

    But for what looks for that which has fallen out of the indexes, a little at a time.
    """
    slow = re.compile(r"""["'](KEYS|SCAN|SSCAN|HSCAN|ZSCAN|SORT|RANDOMKEY)["']""", re.IGNORECASE)
    scripts = list((ROOT / "worker" / "lua").glob("*.lua"))
    assert scripts
    found = [path.name for path in (*SOURCES.values(), *scripts) if slow.search(path.read_text())]
    assert found == ["mending.py"]
