"""Owns the table of the demo's jobs: what each asks for, by which door it comes in, and how it must end.

Most rows meet the sandbox's seeded faults. The others direct the sandbox (the object ``sandbox`` of their input, read
by the gateway only) so that every run shows the same stories. Knows nothing of processes, HTTP or screens.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Door = Literal["http", "arq"]
Mark = Literal["retried", "failed over", "parked", "resent", "text", "once"]

COMPLETED = "completed"
OVERSIZE_BYTES = 10 * 1024 * 1024 + 300_000  # over the gateway's 10 MB, under the worker's 11


@dataclass(frozen=True, slots=True)
class DemoJob:
    """One job. ``ends`` is ``completed`` or the failure's code; ``marks`` is what must be seen of it on the way.

    ``fallbacks`` None leaves them to the models file. ``doors`` names every door it is enqueued through, in order.
    """

    id: str
    kind: str
    input: Mapping[str, Any]
    model: str | None = None
    fallbacks: tuple[str, ...] | None = None
    doors: tuple[Door, ...] = ("http",)
    ends: str = COMPLETED
    marks: frozenset[Mark] = field(default_factory=frozenset)
    first_webhook_refused: bool = False

    def request(self) -> dict[str, Any]:
        """Give the request as a backend would send it."""
        asked: dict[str, Any] = {"id": self.id, "kind": self.kind, "input": dict(self.input)}
        if self.model is not None:
            asked["model"] = self.model
        if self.fallbacks is not None:
            asked["fallbacks"] = list(self.fallbacks)
        return asked


def _marks(*marks: Mark) -> frozenset[Mark]:
    return frozenset(marks)


def _directed(duration_s: float = 3.0, **directive: Any) -> dict[str, Any]:
    return {"duration_s": duration_s, **directive}


def _refused(status: int, code: str, message: str, retry_after_s: float | None = None) -> dict[str, Any]:
    refusal = {"status": status, "code": code, "message": message}
    return refusal if retry_after_s is None else {**refusal, "retry_after_s": retry_after_s}


def _oversized_image() -> str:
    return "data:image/png;base64," + base64.b64encode(bytes(OVERSIZE_BYTES * 3 // 4)).decode()


_ORDINARY = (
    DemoJob(
        "shop-hero-video", "video",
        {"prompt": "A linen shirt on a line in sea wind, golden hour, slow push in", "aspect_ratio": "16:9"}, "veo3",
        first_webhook_refused=True,
    ),
    DemoJob("blog-cover", "image", {"prompt": "A paper boat on a sea of letters, risograph, two colours"}),
    DemoJob("podcast-intro", "music", {"prompt": "Warm upright bass and brushes, ten seconds, ends on a hit"}),
    DemoJob("audiobook-ch1", "voice", {"text": "The ferry left at six, as it always did.", "voice": "Alice"}),
    DemoJob("door-creak", "audio", {"text": "An old oak door opens slowly, once", "duration_seconds": 4}),
    DemoJob(
        "product-turntable", "video", {"prompt": "A ceramic mug turns once on a white table", "duration_seconds": 5},
        "sora-2", doors=("arq",),
    ),
    DemoJob(
        "catalog-sofa", "image", {"prompt": "A green velvet sofa, north light, oak floor"},
        "flux-2/pro-text-to-image", doors=("arq",), first_webhook_refused=True,
    ),
    DemoJob(
        "sneaker-on-white", "image",
        {"prompt": "Put the shoe on plain white", "image_url": "https://shop.example/raw/sneaker-114.jpg"},
        "seedream/4.5-edit", doors=("arq",),
    ),
    DemoJob("menu-photo-ramen", "image", {"prompt": "A bowl of ramen from above, steam"}, "google/imagen4-fast"),
    DemoJob("app-icon-draft", "image", {"prompt": "A fox made of two shapes, flat"}, "ideogram/v3-text-to-image"),
    DemoJob(
        "cafe-lofi-loop", "music", {"prompt": "Lo-fi, dusty piano, 78 bpm, loops cleanly", "custom_mode": False},
        doors=("arq",),
    ),
    DemoJob("trailer-score", "music", {"prompt": "Low strings rise for a minute"}, "ai-music-api/generate"),
    DemoJob("rain-on-tent", "audio", {"text": "Rain on a tent at night, steady", "loop": True}, doors=("arq",)),
    DemoJob(
        "interview-cleanup", "audio", {"audio_url": "https://radio.example/raw/0412.wav"},
        "elevenlabs/audio-isolation", doors=("arq",),
    ),
    DemoJob(
        "phone-greeting", "voice", {"text": "Welcome. Press one for orders.", "voice": "Rachel"},
        "elevenlabs/text-to-speech-turbo-2-5",
    ),
    DemoJob(
        "tavern-dialogue", "voice", {"dialogue": [{"voice": "Brian", "text": "Another round?"}]},
        "elevenlabs/v3-text-to-dialogue", doors=("arq",),
    ),
    DemoJob("travel-teaser", "video", {"prompt": "A night train through snow, window view"}, doors=("arq",)),
)  # fmt: skip

_RECOVERING = (
    DemoJob(
        "newsletter-banner", "image",
        {"prompt": "Tulips, wide", "sandbox": _directed(submit=[_refused(500, "internal_error", "Sunucu hatası.")])},  # noqa: RUF001
        "grok-imagine/text-to-image", marks=_marks("retried"),
    ),
    DemoJob(
        "store-locator", "voice",
        {"text": "Turn left at the fountain.",
         "sandbox": _directed(submit=[_refused(429, "rate_limit_exceeded", "Dakikalık istek sınırı.", 1.5)])},  # noqa: RUF001
        marks=_marks("retried"), doors=("arq",),
    ),
    DemoJob(
        "launch-film", "video",
        {"prompt": "A rocket of flowers", "sandbox": _directed(
            result={"veo3": [{"fail": {"code": "501", "message": "Failed to generate. Please try another model."}}],
                    "*": ["success"]})},
        "veo3", ("sora-2",), marks=_marks("retried", "failed over"),
    ),
    DemoJob(
        "concert-poster", "image",
        {"prompt": "A crowd, hands up, red light", "sandbox": _directed(
            result={"google/nano-banana-2-1k": [
                {"fail": {"code": "1501", "message": "Content review failed. Please adjust the input and try again"}}],
                "*": ["success"]})},
        "google/nano-banana-2-1k", ("google/imagen4",), marks=_marks("failed over"),
    ),
    DemoJob(
        "lookbook-cover", "image",
        {"prompt": "A raincoat in fog", "sandbox": _directed(submit={"google/imagen4-ultra": [
            _refused(429, "daily_request_limit_exceeded", "Günlük istek sınırına ulaştınız.", 600)]})},  # noqa: RUF001
        "google/imagen4-ultra", ("google/nano-banana-pro-2k",), marks=_marks("failed over"),
    ),
    DemoJob(
        "drone-flyover", "video",
        {"prompt": "Over a vineyard at dawn", "sandbox": _directed(submit=[
            _refused(429, "daily_token_limit_exceeded", "Günlük token sınırına ulaştınız.", 6)])},  # noqa: RUF001
        "hailuo", (), marks=_marks("parked"), doors=("arq",),
    ),
    DemoJob(
        "radio-jingle", "music", {"prompt": "Five notes, whistled", "sandbox": _directed(submit=["accept_then_close"])},
        marks=_marks("resent"),
    ),
    DemoJob(
        "birthday-card", "image",
        {"prompt": "A cat with a cake", "sandbox": _directed(result=["done_without_url", "success"])},
        marks=_marks("retried"),
    ),
    DemoJob(
        "vertical-story", "video",
        {"prompt": "Coffee, top shot", "sandbox": _directed(
            5.0, lookups=[{"word": "moderating_output"}, {"word": "PENDING_REVIEW"}, {"word": "upscaling"}])},
        "runway",
    ),
    DemoJob(
        "marimba-ringtone", "audio",
        {"text": "Marimba, four bars", "sandbox": _directed(lookups=["missing_404", "missing_404", "record_null"])},
        doors=("arq",),
    ),
    DemoJob(
        "meeting-transcript", "audio",
        {"audio_url": "https://office.example/rec/standup.m4a", "language": "en", "sandbox": _directed()},
        "speech-to-text", marks=_marks("text"),
    ),
    DemoJob(
        "order-1841", "image", {"prompt": "A gift box, ribbon, studio", "sandbox": _directed()},
        doors=("http", "arq", "http"), marks=_marks("once"),
    ),
)  # fmt: skip

_FAILING = (
    DemoJob(
        "stretched-banner", "image",
        {"prompt": "A skyline", "aspect_ratio": "99:1", "sandbox": _directed(
            submit=[_refused(500, "", "aspect_ratio is not within the range of allowed options")])},
        ends="invalid_input",
    ),
    DemoJob("legacy-clip", "video", {"prompt": "A tram, archive look"}, "veo-1-beta", ends="model_not_found"),
    DemoJob(
        "partner-ad", "video",
        {"prompt": "A bicycle ad", "sandbox": _directed(
            submit=[_refused(403, "model_blocked", "Bu model proje için engellenmiş.")])},
        "wan", ends="model_blocked", doors=("arq",),
    ),
    DemoJob(
        "poster-scan", "image", {"prompt": "Remove the creases", "image_url": _oversized_image()},
        "gpt-image/1.5-image-to-image", ends="payload_too_large",
    ),
)  # fmt: skip


def _mixed() -> tuple[DemoJob, ...]:
    """Deal the directed jobs among the ordinary ones, the slowest stories first."""
    mixed: list[DemoJob] = []
    directed = [*_RECOVERING[2:3], *_RECOVERING[5:7], *_RECOVERING[:2], *_RECOVERING[3:5], *_RECOVERING[7:], *_FAILING]
    for place in range(max(len(_ORDINARY), len(directed))):
        mixed += _ORDINARY[place : place + 1]
        mixed += directed[place : place + 1]
    return tuple(mixed)


JOBS = _mixed()
