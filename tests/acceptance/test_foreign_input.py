"""What no user means to type, and what others type for them: one line each, and none that moves the cursor."""

import asyncio
import os
import re
import sys

import pytest
from product import Place, Said

NOT_TEXT = "\udcff"  # how Python holds the byte ff
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
DEEP = "[" * 100_000


def fault(said: Said, status: int, *words: str) -> str:
    """See that a command failed with one harmless line that has these words; return what is wrong, if anything."""
    lines = said.err.splitlines()
    good = said.status == status and said.out == "" and len(lines) == 1 and lines[0].startswith("onysoft-worker: ")
    missing = [word for word in words if word not in said.err]
    good = good and not missing and not CONTROL.search(said.err)
    return "" if good else f"status {said.status}, {missing} missing, out {said.out!r}, err {said.err[-300:]!r}"


async def started(place: Place, *words: str, stdin: int) -> asyncio.subprocess.Process:
    """Start a command with a standard input of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *words,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=place.environ,
        cwd=place.folder,
    )


FOREIGN: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    *(
        ((*words, NOT_TEXT), ("not UTF-8",))
        for words in (
            ("show",),
            ("watch",),
            ("cancel",),
            ("retry",),
            ("webhooks", "show"),
            ("webhooks", "replay"),
            ("webhooks", "list", "--job"),
            ("jobs", "--model"),
        )
    ),
    (("show", "\x1b]0;pwn\x07"), ("ID",)),
    (("watch", "a\nb"), ("ID",)),
    (("cancel", "fine", "\u202e"), ("ID",)),
    (("webhooks", "list", "--job", "a b"), ("--job", "A-Za-z0-9")),
    (("webhooks", "show", ""), ("ID",)),
    (("jobs", "--model", "\x1b[2J"), ("--model",)),
    (("retry", "--status", "failed", "--model", "a b"), ("--model",)),
    (("show", "a", "--\x1b]0;pwn\x07"), ("No such option",)),
    (("\x1b]0;pwn\x07",), ("No such command",)),
    (("submit", "image", "--input", "x=" + DEEP[:3000]), ("--input", "'x'", "too deep")),
    (("submit", "image", "--input", "x=" + DEEP[:100] + "]" * 100), ("nested deeper",)),
    (("submit", "image", "--input-file", "deep.json"), ("--input-file", "too deep")),
    (("submit", "image", "--input-file", "binary"), ("--input-file",)),
    (("webhooks", "replay", "--since", "\x1b]0;pwn\x07"), ("--since", "30m")),
]


async def test_foreign_arguments_are_told_in_one_line(place: Place) -> None:
    """No text, no id, no model, JSON without bottom: status 2 and one visible line; nothing is touched."""
    (place.folder / "deep.json").write_text(DEEP)
    (place.folder / "binary").write_bytes(bytes(range(256)))
    said: list[Said] = []
    for start in range(0, len(FOREIGN), 6):  # not all at once: they are Python processes
        said += await asyncio.gather(*(place.run(*words) for words, _ in FOREIGN[start : start + 6]))
    faults = [
        (words, why) for (words, told), answer in zip(FOREIGN, said, strict=True) if (why := fault(answer, 2, *told))
    ]
    assert faults == []
    assert not place.data_dir.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (DEEP, ("line 1", "too deep")),
        ('{"stage": "poll", "expect": [1]}', ("line 1", "expect")),
        ('{"stage": "\\u001b]0;pwn"}', ("line 1", "stage")),
    ],
    ids=["deep", "expect", "control"],
)
async def test_foreign_lines_of_a_file_are_told_by_number(place: Place, line: str, words: tuple[str, ...]) -> None:
    """``explain --file`` names the line that it cannot use."""
    (place.folder / "rows.jsonl").write_text(f"{line}\n")
    assert fault(await place.run("explain", "--file", "rows.jsonl"), 1, *words) == ""


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
async def test_a_file_has_the_lines_that_json_lines_has(place: Place, separator: str) -> None:
    """What only Unicode takes for the end of a line may stand in a message."""
    (place.folder / "rows.jsonl").write_text(f'{{"stage": "poll", "message": "a{separator}b"}}\n', encoding="utf-8")
    said = await place.run("explain", "--file", "rows.jsonl")
    assert (said.status, len(said.out.splitlines())) == (0, 1), said.err


async def test_webhooks_are_replayed_since_times_beyond_the_calendar(place: Place) -> None:
    """As long ago as before 1970, and the first and the last of all times, are times like others."""
    assert (await place.run("submit", "image", "--id", "a", "--input", "prompt=x")).status == 0
    assert (await place.run("cancel", "a")).status == 0
    far = ["999999d", "0001-01-01T00:00:00+14:00", "0001-01-01"]
    for since in far:
        said = await place.run("webhooks", "replay", "--since", since)
        assert fault(said, 2, "1 webhook made since 1970-01-01", "--yes") == ""
    said = await place.run("webhooks", "replay", "--since", far[0], "--yes")
    assert (said.status, said.out) == (0, "1 replayed\n"), said.err
    said = await place.run("webhooks", "replay", "--since", "9999-12-31T23:59:59-14:00", "--yes")
    assert (said.status, said.out) == (0, "0 replayed\n"), said.err


BAD_URLS = [f"redis://127.0.0.1:1/0?{query}" for query in ("foo=hunter22", "socket_timeout=hunter22", "hunter22=1")]


async def test_options_of_redis_that_it_does_not_have_are_refused_at_start(place: Place) -> None:
    """By every kind of command, naming REDIS_URL and what is allowed, and nothing of the value."""
    said = await asyncio.gather(
        *(place.run("jobs", REDIS_URL=url) for url in BAD_URLS),
        place.run("web", REDIS_URL=BAD_URLS[0]),
        place.run("work", REDIS_URL=BAD_URLS[1]),
    )
    assert [fault(answer, 2, "REDIS_URL", "socket_connect_timeout=SECONDS") for answer in said] == [""] * len(said)
    doctor = await place.run("doctor", REDIS_URL=BAD_URLS[0])
    assert doctor.status == 1
    assert "REDIS_URL: allowed is" in doctor.out
    assert not any("hunter22" in answer.out + answer.err for answer in (*said, doctor))


@pytest.mark.parametrize("words", [(), ("webhooks",)])
async def test_no_command_is_answered_with_the_help(place: Place, words: tuple[str, ...]) -> None:
    """It is printed as it is, on standard output; the status says that something was missing."""
    alone = await started(place, *words, stdin=asyncio.subprocess.DEVNULL)
    out, err = await alone.communicate()
    assert (alone.returncode, err) == (2, b"")
    assert out.decode() == (await place.run(*words, "--help")).out


async def test_a_question_that_gets_no_answer_does_nothing(place: Place) -> None:
    """The end of the input at the question: a line of its own says that nothing was done."""
    assert (await place.run("submit", "image", "--id", "a", "--input", "prompt=x")).status == 0
    ours, theirs = os.openpty()
    try:
        command = await started(place, "cancel", "--status", "queued", stdin=theirs)
        os.write(ours, b"\x04")  # Ctrl-D
        out, err = await command.communicate()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (command.returncode, out.strip()) == (130, b"")
    assert err.decode().splitlines()[1:] == ["onysoft-worker: nothing was done"]
    assert "queued" in (await place.run("show", "a")).out
