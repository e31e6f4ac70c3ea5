"""Owns what is read from the models file: chains, timeouts and per-model flags, as frozen types."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from config.settings import SettingsError

KINDS = ("video", "image", "music", "audio", "voice")
SEPARATOR = "|"  # of a counter's labels, of which a model's name is one


@dataclass(frozen=True)
class Models:
    """The models file. ``chains`` keeps the file's order; a model stands in at most one chain."""

    chains: Mapping[str, tuple[str, ...]]
    default_chains: Mapping[str, str]
    track_timeouts_s: Mapping[str, float]
    text_models: frozenset[str]
    named: frozenset[str]

    @cached_property
    def known(self) -> frozenset[str]:
        """Every model the file names: the bound on metric labels."""
        return self.named.union(*self.chains.values())

    def default_model(self, kind: str) -> str:
        """Name the model a job of this kind gets when it asks for none."""
        return self.chains[self.default_chains[kind]][0]

    def alternates(self, model: str) -> tuple[str, ...]:
        """Name what follows the model in its chain; nothing for a model in no chain."""
        for chain in self.chains.values():
            if model in chain:
                return chain[chain.index(model) + 1 :]
        return ()

    def label(self, model: str) -> str:
        """Bound a metric label: the model where the file names it, else ``other``."""
        return model if model in self.known else "other"


def load_models(path: Path | None = None) -> Models:
    """Read a models file (the packaged one by default); raise ``SettingsError`` naming the place in it."""
    try:
        text = path.read_text() if path else files("config").joinpath("models.toml").read_text()
        raw = tomllib.loads(text)
    except OSError as error:
        raise SettingsError([f"MODELS_FILE: cannot be read ({error.strerror})"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"MODELS_FILE: is not TOML ({error})"]) from error
    faults = list(_faults(raw))
    if faults:
        raise SettingsError([f"MODELS_FILE: {fault}" for fault in faults])
    flags: dict[str, dict[str, Any]] = raw.get("models", {})
    return Models(
        chains={task: tuple(models) for task, models in raw["chains"].items()},
        default_chains={kind: raw["kinds"][kind]["default_chain"] for kind in KINDS},
        track_timeouts_s={kind: float(raw["kinds"][kind]["track_timeout_s"]) for kind in KINDS},
        text_models=frozenset(model for model, flag in flags.items() if flag.get("text_output")),
        named=frozenset(flags),
    )


def _faults(raw: dict[str, Any]) -> list[str]:
    unknown = [f"{name}: unknown table; allowed are kinds, chains, models" for name in raw.keys() - _TABLES]
    tables = {name: raw.get(name, {}) for name in _TABLES}
    shapeless = [f"{name}: must be a table" for name, table in tables.items() if not isinstance(table, dict)]
    if unknown or shapeless:
        return unknown + shapeless
    return [
        *_chain_faults(tables["chains"]),
        *_kind_faults(tables["kinds"], tables["chains"]),
        *_model_faults(tables["models"]),
    ]


_TABLES = frozenset({"kinds", "chains", "models"})


def _chain_faults(chains: dict[str, Any]) -> list[str]:
    faults, seen = [], dict[str, str]()
    for task, models in chains.items():
        if not isinstance(models, list) or not models or not all(isinstance(m, str) and m for m in models):
            faults.append(f"chains.{task}: must be a list of model ids, the primary first")
            continue
        for model in models:
            if SEPARATOR in model:
                faults.append(f"chains.{task}: {model} must not contain {SEPARATOR}")
            if model in seen:
                faults.append(f"chains.{task}: {model} stands in chain {seen[model]} already; a model has one chain")
            seen[model] = task
    return faults


def _kind_faults(kinds: dict[str, Any], chains: dict[str, Any]) -> list[str]:
    faults = [f"kinds.{name}: unknown kind; allowed are {', '.join(KINDS)}" for name in kinds if name not in KINDS]
    for kind in KINDS:
        row = kinds.get(kind)
        if not isinstance(row, dict):
            faults.append(f"kinds.{kind}: is missing")
            continue
        if not isinstance(row.get("default_chain"), str) or row["default_chain"] not in chains:
            faults.append(f"kinds.{kind}.default_chain: must name one of the chains")
        timeout = row.get("track_timeout_s")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            faults.append(f"kinds.{kind}.track_timeout_s: must be seconds above 0")
    return faults


def _model_faults(models: dict[str, Any]) -> list[str]:
    faults = []
    for model, flags in models.items():
        if SEPARATOR in model:
            faults.append(f"models.{model}: must not contain {SEPARATOR}")
        if not isinstance(flags, dict) or flags.keys() - {"text_output"}:
            faults.append(f"models.{model}: must be a table; allowed is text_output")
        elif not isinstance(flags.get("text_output", False), bool):
            faults.append(f"models.{model}.text_output: must be true or false")
    return faults
