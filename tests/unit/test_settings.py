"""The environment, read and checked whole."""

import base64
import re
from pathlib import Path

import pytest
from redis.asyncio import ConnectionPool

from config.models import KINDS, load_models
from config.settings import Settings, SettingsError

README = Path(__file__).parents[2] / "README.md"


def test_the_defaults_are_the_contracts() -> None:
    """An empty environment gives the documented defaults."""
    settings = Settings.from_env({})
    assert settings.onysoft_base_url == "https://api.onysoft.com"
    assert settings.webhook_schedule_s == (0, 5, 300, 1800, 7200, 18000, 36000, 36000)
    assert (settings.max_attempts, settings.retry_base_s, settings.retry_cap_s) == (5, 2, 300)
    assert settings.queue_name == "onysoft:jobs"
    assert settings.failover_on == {"content_rejected"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ONYSOFT_BASE_URL", "api.onysoft.com"), ("ONYSOFT_BASE_URL", "https://u:p@x"), ("REDIS_URL", "http://x"),
        ("KEY_PREFIX", "a b"), ("PORT", "65536"), ("PORT", "x"), ("BIND_HOST", "0.0.0.0"), ("API_TOKENS", "a,,b"),
        ("WEBHOOK_SECRET", "whsec_c2hvcnQ="), ("WEBHOOK_SECRET", "abc"), ("WEBHOOK_ALLOW_PRIVATE", "maybe"),
        ("WEBHOOK_SCHEDULE_S", "0,x"), ("WEBHOOK_SCHEDULE_S", "-1"),
        ("WEBHOOK_SCHEDULE_S", ",".join("1" * 51)), ("MAX_ATTEMPTS", "0"), ("RETRY_BASE_S", "nan"),
        ("RETRY_BASE_S", "inf"), ("RETRY_CAP_S", "1"), ("POLL_MAX_S", "1"), ("POLL_MIN_S", "0"),
        ("QUOTA_RESET", "24:00 Europe/Istanbul"), ("QUOTA_RESET", "00:00 Mars/Olympus"), ("QUOTA_RESET", "00:00"),
        ("QUOTA_RESET", "00:00 ../../etc/passwd"), ("UNKNOWN_SUBMIT", "maybe"), ("ACCOUNT_ERRORS", "ignore"),
        ("FAILOVER_ON", "Content Rejected"), ("CONCURRENCY", "1"), ("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml"),
        ("WEBHOOK_URL", "x"), ("TRACK_TIMEOUT_S", "0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    """The variable is named with what is allowed, and the value, which may be a secret, is not repeated."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({name: value})
    [fault] = refused.value.faults
    assert fault.startswith(f"{name}: allowed is ")
    assert name not in {"WEBHOOK_SECRET", "API_TOKENS", "ONYSOFT_BASE_URL"} or value not in fault


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?foo=s3cret", "redis://h/0?s3cret=1", "redis://h/0?socket_timeout=s3cret", "redis://h/0?db=",
        "redis://h/0?db=1&db=2", "redis://h/s3cret", "redis://:p#s3cret@h/0", "redis://:s3cret\udcff@h/0",
        "redis://:pass?s3cret@h/0", "redis://h/0?socket_timeout=0", "redis://h/0?max_connections=s3cret",
        "redis://h/0?ssl_cert_reqs=none", "redis://h/0?retry_on_error=s3cret", "redis://h/0?health_check_interval=1.5",
        "unix://s3cret", "unix:///s?socket_keepalive=yes", "rediss://h/0?ssl_cert_reqs=s3cret",
        "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=yes",
    ],
)  # fmt: skip
def test_a_redis_url_that_no_client_can_use_is_refused(url: str) -> None:
    """What the client would trip over when it connects is a fault at start, and nothing of it is repeated."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"REDIS_URL": url})
    [fault] = refused.value.faults
    assert fault.startswith("REDIS_URL: allowed is ")
    assert "s3cret" not in fault


@pytest.mark.parametrize("special", "/#?")
@pytest.mark.parametrize("before", ["s3cret", "12"])
def test_a_password_to_be_percent_encoded_is_said_to_be(special: str, before: str) -> None:
    """Whether what comes before the character might be a port or not; nothing of the password is repeated."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"REDIS_URL": f"redis://user:{before}{special}s3cret@h/0"})
    [fault] = refused.value.faults
    assert "s3cret" not in fault
    assert "percent-encode the password" in fault


@pytest.mark.parametrize(
    "url",
    [
        "redis://h", "redis://h/", "redis://u:p%40@[::1]:6380/3", "redis://h?db=3&client_name=shop", "unix:///tmp/r.sock",
        "redis://h/0?socket_timeout=2.5&socket_connect_timeout=1&socket_keepalive=yes&retry_on_timeout=true",
        "unix:///tmp/r.sock?db=2&username=u&password=p%2520&health_check_interval=0",
        "redis://h:6379/0?password=p@ss",
        "rediss://h/0?ssl_cert_reqs=required&ssl_check_hostname=yes&ssl_ca_certs=/etc/ca.pem", "rediss://h?ssl_cert_reqs=none",
    ],
)  # fmt: skip
def test_a_redis_url_with_options_is_one_that_the_client_takes(url: str) -> None:
    """Whatever is allowed makes a connection: the client knows each of the options."""
    assert Settings.from_env({"REDIS_URL": url}).redis_url == url
    pool = ConnectionPool.from_url(url)
    assert pool.make_connection()


def test_all_faults_come_at_once() -> None:
    """A deployment is mended once."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"PORT": "x", "MAX_ATTEMPTS": "x", "LOG_LEVEL": "x"})
    assert len(refused.value.faults) == 3


def test_secrets_do_not_show_in_the_settings() -> None:
    """Printing the settings shows no key, token, password or secret."""
    secret = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtMDEyMzQ1Njc4OQ=="
    settings = Settings.from_env(
        {"ONYSOFT_API_KEY": "sk-ony-" + "ab" * 24, "API_TOKENS": "ops:hunter22", "WEBHOOK_SECRET": secret,
         "REDIS_URL": "redis://:hunter22@localhost/0"}
    )  # fmt: skip
    for text in ("abab", "hunter22", "c2Vj"):
        assert text not in repr(settings)


def secret_of(size: int, *, first: int = 0) -> str:
    """Write a webhook secret of so many bytes."""
    return "whsec_" + base64.b64encode(bytes([first, *range(1, size)])).decode()


@pytest.mark.parametrize("blanks", [" ", "  ", "\t", "\n", " \r\n "])
@pytest.mark.parametrize("sizes", [(24,), (64,), (32, 24, 64)])
def test_webhook_secrets_are_24_to_64_bytes(sizes: tuple[int, ...], blanks: str) -> None:
    """One or several, whatever blanks are between and around them, in the order they stand."""
    secrets = tuple(secret_of(size) for size in sizes)
    text = blanks + blanks.join(secrets) + blanks
    assert Settings.from_env({"WEBHOOK_SECRET": text}).webhook_secret == secrets


FINE = secret_of(32)
CODED = base64.b64encode(bytes(25)).decode()
WRONG_SECRETS = [
    (secret_of(23), "this is of 23 bytes"),
    (secret_of(65), "this is of 65 bytes"),
    ("whsec_", "this is of 0 bytes"),
    (FINE.removeprefix("whsec_"), "this does not begin with whsec_"),
    (FINE.replace("whsec_", "WHSEC_"), "this does not begin with whsec_"),
    (f'"{FINE}"', "this does not begin with whsec_"),
    ("whsec_" + "-_" * 16, "this is URL-safe base64"),
    (secret_of(25).rstrip("="), "this is no base64"),
    (f"{FINE[:-1]}", "this is no base64"),
    (FINE[:20] + "!" + FINE[21:], "this is no base64"),
    (FINE[:20] + "é" + FINE[21:], "this is no base64"),
    ("whsec_" + CODED[:-3] + "B==", "this is no base64 behind whsec_ as an encoder writes it"),
    (f"{FINE},{secret_of(24)}", "this is no base64"),
    (f"{FINE} {secret_of(23)}", "number 2 is of 23 bytes"),
    (f"{secret_of(24)} {FINE} {FINE}", "number 3 is the same as number 2"),
    (f"abc {FINE} {secret_of(65)}", "number 1 does not begin with whsec_, number 3 is of 65 bytes"),
]


@pytest.mark.parametrize(("text", "told"), WRONG_SECRETS)
def test_a_wrong_webhook_secret_is_told_by_its_place(text: str, told: str) -> None:
    """Which of several and why, and nothing of any."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"WEBHOOK_SECRET": text})
    [fault] = refused.value.faults
    assert fault.startswith("WEBHOOK_SECRET: allowed is whsec_ followed by base64 of 24-64 bytes")
    assert f"; {told}" in fault
    assert not any(word[6:20] in fault for word in text.split() if len(word) > 20)


def test_tokens_have_holders() -> None:
    """A token may name its holder; any length will do."""
    settings = Settings.from_env({"API_TOKENS": "ops:abc, x"})
    assert [(token.name, token.token) for token in settings.api_tokens or ()] == [("ops", "abc"), ("token-2", "x")]


def test_the_packaged_models_file_serves_every_kind() -> None:
    """Each kind has a default model, and a chain's alternates follow their model."""
    models = load_models()
    for kind in KINDS:
        assert models.default_model(kind) in models.known
        assert models.track_timeouts_s[kind] > 0
    assert models.alternates("veo3") == models.chains["text-to-video"][1:]
    assert models.alternates("of-nobody") == ()
    assert models.label("of-nobody") == "other"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x", "TOML"), ("[kinds.video]", "kinds.image: is missing"), ("[kinds.vidoe]", "kinds.vidoe"),
        ("[x]", "x: unknown"),
        ('[chains]\na=["m"]\nb=["m"]', "m stands in chain a"), ("[chains]\na=[]", "chains.a"),
        ('[models]\n"m"={speed=1}', "models.m"),
    ],
)  # fmt: skip
def test_a_wrong_models_file_is_refused_by_place(text: str, place: str, tmp_path: Path) -> None:
    """The place in the file is named."""
    file = tmp_path / "models.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="MODELS_FILE") as refused:
        load_models(file)
    assert any(place in fault for fault in refused.value.faults)


def test_the_readme_lists_every_variable_with_its_default() -> None:
    """The table an operator reads is the table the program has."""
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`|[^|]*) \|", README.read_text(), flags=re.MULTILINE))
    names = {name.upper() for name in Settings.__dataclass_fields__}
    assert rows.keys() == names
    for name, field in Settings.__dataclass_fields__.items():
        if field.metadata["default"] is not None:
            assert rows[name.upper()] == field.metadata["default"]
