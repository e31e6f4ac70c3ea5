"""A wording nobody knows is told of once, however often and with whatever ids in it it comes."""

import pytest
from structlog.testing import capture_logs

from jobs.failures import classify
from jobs.verdict import Failure, Signal, Stage
from worker import unrecognised
from worker.unrecognised import FINGERPRINT_CHARS, Unrecognised, fingerprint


def failed(words: str, code: str | None = None) -> Failure:
    """Judge a failed generation."""
    return classify(Signal(Stage.RESULT, 200, code, words))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Flux capacitor misaligned", "flux  capacitor MISALIGNED"),
        ("Flux drained after 3 s", "Flux drained after 120 s"),
        ("Flux of task vtask_77a1b2 drained", "Flux of task vtask_9 drained"),
        ("Flux at https://a.example/1.png?x=1 drained", "Flux at https://b.example/2.png drained"),
        ("Flux 3f2504e0-4f89-11d3-9a0c-0305e82c3301 drained", "Flux 6fa459ea-ee8a-3ca4-894e-db77e160355e drained"),
        ("Flux deadbeef0123 drained", "Flux cafe98765432 drained"),
    ],
)
def test_what_varies_is_left_out(one: str, other: str) -> None:
    """Case, numbers, ids and URLs make no new wording."""
    assert fingerprint(one) == fingerprint(other)


def test_other_words_are_another_wording() -> None:
    """And a fingerprint is bounded."""
    assert fingerprint("Flux capacitor misaligned") != fingerprint("Flux capacitor stolen")
    assert len(fingerprint("flux " * 1000)) <= FINGERPRINT_CHARS


def test_each_wording_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the job it was first met in; a recognised failure is none; what was told longest ago is forgotten."""
    monkeypatch.setattr(unrecognised, "REMEMBERED", 2)
    told = Unrecognised()
    with capture_logs() as lines:
        assert told.tell(failed("Flux 1 drained"), job_id="j1", model="veo3")
        assert not told.tell(failed("Flux 2 drained"), job_id="j2", model="veo3")
        assert not told.tell(failed("Video generation failed"), job_id="j3", model="veo3")
        assert told.tell(failed("Flux 3 drained", "flux_low"), job_id="j4", model="veo3")
        assert told.tell(failed("Flux sang"), job_id="j5", model="veo3")
        assert told.tell(failed("Flux 4 drained"), job_id="j6", model="veo3")
    assert [line["job"] for line in lines] == ["j1", "j4", "j5", "j6"]
    assert {line["event"] for line in lines} == {"failure.unrecognised"}
    assert lines[0]["words"] == "Flux 1 drained"
