"""How meanings are found: by the words their ways begin with, and by every one of them."""

import re

import pytest

from jobs import failures, lexicon
from jobs.lexicon import Meaning, meanings_of

WAYS = lexicon._WAYS
assert failures.RULES  # they bring every meaning of the project


@pytest.fixture(autouse=True)
def _own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the ways of a test out of everybody else's."""
    monkeypatch.setattr(lexicon, "_WAYS", {})
    monkeypatch.setattr(lexicon, "_CHINESE", [])
    meanings_of.cache_clear()


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("too (?:long|short)", "it is too short"),
        ("(?:image|photo)s? missing", "photos missing"),
        ("(?:very )?large", "so large"),
        ("(?:very ){0,2}large", "so large"),
        ("(?<!not )allowed", "this is allowed"),
        ("(?!very )v\\w+ large", "veritably large"),
        ("colou?r", "a color"),
        ("50[0-4] error", "a 502 error"),
        ("<cannot> open", "it could not open"),
    ],
)
def test_a_way_is_found_wherever_it_is_said(way: str, said: str) -> None:
    """Whatever a way begins with, it is found in the middle of a text as at its beginning."""
    meaning = Meaning(way)
    assert meanings_of(said) == {meaning}
    assert meanings_of("something else") == set()


def test_a_text_has_every_meaning_that_it_says() -> None:
    """Several meanings are found in one pass, Chinese among them."""
    late, large, unsaid = Meaning("too late"), Meaning("too large", chinese="过大"), Meaning("too few")
    assert meanings_of("too late and too large") == {late, large}
    assert meanings_of("图片过大") == {large}
    assert unsaid not in meanings_of("too late and too large")


@pytest.mark.parametrize("way", [r"\\w+ missing", "", "a|[bc]d", "(?:a|) b?", "x?ray"])
def test_a_way_that_could_begin_with_anything_is_refused(way: str) -> None:
    """Such a way would be found by nothing, so it cannot be written."""
    with pytest.raises(ValueError, match="begin with letters"):
        Meaning(way)


def test_every_way_of_the_project_is_a_pattern() -> None:
    """Ways are compiled when first needed, so a broken one would be noticed late."""
    assert len(WAYS) > 100
    assert all(re.compile(way) for ways in WAYS.values() for _, way in ways)
