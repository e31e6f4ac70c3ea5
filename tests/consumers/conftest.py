"""What tests of consumers may ask for: the page's receiver in a language, twice, each with one of two secrets."""

from collections.abc import Iterator

import pytest
from consumer import LANGUAGES, Consumer, program

from worker.signing import make_secret


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for a receiver once for each language."""
    if "command" in metafunc.fixturenames:
        metafunc.parametrize("command", LANGUAGES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Give the command that runs the page's receiver in a language."""
    return program(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def secrets() -> tuple[str, str]:
    """Give two secrets, as while rotating: the new one, and the one before."""
    return make_secret(), make_secret()


@pytest.fixture(scope="session")
def pair(
    command: list[str], secrets: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Consumer, Consumer]]:
    """Run two receivers: one that has the new secret already, one that still has the old one."""
    folder = tmp_path_factory.mktemp("receivers")
    new, old = (Consumer(command, secret, folder) for secret in secrets)
    try:
        new.await_listening()
        old.await_listening()
        yield new, old
    finally:
        new.close()
        old.close()


@pytest.fixture(scope="session")
def consumer(pair: tuple[Consumer, Consumer]) -> Consumer:
    """Give the one that has the new secret."""
    return pair[0]
