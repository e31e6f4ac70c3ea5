"""The models the sandbox offers: alias, answer shape, how long they take, what a task costs.

Model ids, aliases and typical durations are those of the vendor's public pages; prices are invented. Knows nothing of
tasks, clocks or HTTP: randomness is handed in.
"""

import math
import random
from dataclasses import dataclass
from typing import Literal

ALIASES = ("video", "image", "audio", "voice", "music")
CURRENCY = "USD"

Shape = Literal["plain", "kie", "veo", "suno", "bare", "text"]


@dataclass(frozen=True, slots=True)
class Model:
    """One model; `median_s` and `sigma` are the parameters of a log-normal duration."""

    id: str
    alias: str
    shape: Shape
    median_s: float
    sigma: float
    price_micros: int
    urls: int = 1
    supported: bool = True
    active: bool = True

    def draw_duration_s(self, rng: random.Random) -> float:
        """Draw how long one task takes in real life, in seconds."""
        return self.median_s * math.exp(self.sigma * rng.gauss(0.0, 1.0))


def _family(alias: str, shape: Shape, median_s: float, sigma: float, price_micros: int, *ids: str) -> list[Model]:
    return [Model(name, alias, shape, median_s, sigma, price_micros) for name in ids]


_ROWS: list[Model] = [
    *_family("video", "veo", 75.0, 0.30, 400_000, "veo3", "veo3-fast"),
    *_family("video", "plain", 110.0, 0.35, 300_000, "sora-2", "sora-2-pro"),
    *_family("video", "plain", 60.0, 0.30, 250_000, "runway", "hailuo"),
    *_family("video", "kie", 120.0, 0.40, 280_000, "kling", "wan"),
    *_family("image", "kie", 18.0, 0.30, 30_000, "seedream/4.5-text-to-image", "seedream/4.5-edit", "ideogram/v3-edit"),
    *_family(
        "image",
        "plain",
        15.0,
        0.30,
        40_000,
        "flux-2/pro-text-to-image",
        "google/imagen4",
        "google/imagen4-ultra",
        "google/nano-banana-2-1k",
        "google/nano-banana-pro-2k",
        "ideogram/v3-text-to-image",
        "grok-imagine/text-to-image",
        "gpt-image/1.5-text-to-image",
        "gpt-image/1.5-image-to-image",
    ),
    *_family("image", "plain", 10.0, 0.25, 20_000, "google/imagen4-fast"),
    *_family("audio", "bare", 8.0, 0.30, 10_000, "elevenlabs/sound-effect-v2", "elevenlabs/audio-isolation"),
    *_family("audio", "text", 10.0, 0.40, 8_000, "speech-to-text"),
    *_family(
        "voice",
        "plain",
        6.0,
        0.30,
        12_000,
        "elevenlabs/text-to-speech-multilingual-v2",
        "elevenlabs/text-to-speech-turbo-2-5",
        "elevenlabs/v3-text-to-dialogue",
    ),
    *[
        Model(name, "music", "suno", 105.0, 0.12, 60_000, urls=2)
        for name in (
            "suno-v4",
            "ai-music-api/generate",
            "ai-music-api/extend",
            "ai-music-api/mashup",
            "suno-extend-music",
        )
    ],
    # Listed by the vendor, yet no task models here: what a wrong choice is answered with.
    Model("google/gemini-3-pro-image", "image", "plain", 15.0, 0.3, 40_000, supported=False),
    Model("runway-gen2", "video", "plain", 60.0, 0.3, 250_000, active=False),
]

MODELS: dict[str, Model] = {model.id: model for model in _ROWS}


def improvise(name: str) -> Model:
    """Make up a plain model for a name the catalogue lacks (see the control key `extra_models`)."""
    return Model(name, "image", "plain", 15.0, 0.3, 40_000)


def listing() -> dict[str, object]:
    """Answer `GET /v1/models`."""
    rows = [
        {"id": model.id, "object": "model", "type": model.alias, "is_active": 1}
        for model in MODELS.values()
        if model.active
    ]
    return {"success": True, "data": rows}
