"""The page of failures says what the table says, and keeps what another tool has written into it."""

import json
import re
from pathlib import Path

import pytest

from jobs import meanings, refusals
from jobs.failures import RULES, classify, explain_dict
from jobs.lexicon import Meaning
from jobs.verdict import Signal, Stage
from worker.explain import explain_one
from worker.failures_page import MEANINGS, PageError, numbers, tables, when, write_page

PAGE = (Path(__file__).parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")


def test_the_page_is_the_tables() -> None:
    """What is in the repository is what the table gives: `make failures-page` rewrites it."""
    assert write_page(PAGE) == PAGE, "docs/failures.md differs from the table: run `make failures-page`"


def test_every_rule_is_on_it_once_in_order_of_precedence() -> None:
    """From the top of a stage to its end."""
    rows = "\n".join(table for name, table in tables().items() if name != "codes")
    assert re.findall(r"^\| `(\w+)` \|", rows, flags=re.MULTILINE) == [rule.name for rule in RULES]


def test_every_row_says_when() -> None:
    """In plain words; only the last row of a stage takes everything."""
    takes_all = [rule.name for rule in RULES if rule.stages and when(rule) == "anything else"]
    assert takes_all == ["submit_unrecognised", "poll_unreadable", "result_unrecognised"]
    assert "something else" not in PAGE


def test_every_meaning_is_in_plain_words() -> None:
    """All words that are explained are there, and all that a row uses are explained."""
    words = {name: said for name, said in {**vars(meanings), **vars(refusals)}.items() if isinstance(said, Meaning)}
    assert words.keys() >= MEANINGS.keys()
    used = {id(said) for rule in RULES for said in (rule.words, *rule.unless) if said is not None}
    assert {name for name, said in words.items() if id(said) in used} <= MEANINGS.keys()


def test_what_lies_outside_the_tables_is_kept() -> None:
    """Prose, and another tool's table between its own markers; a page without the markers is refused."""
    begin, end = "<!-- faults:begin -->\n", "\n<!-- faults:end -->"
    before, _, rest = PAGE.partition(begin)
    assert rest.partition(end)[1]
    filled = f"{before}{begin}| fault | outcome |{end}{rest.partition(end)[2]}"
    assert write_page(filled) == filled
    spoilt = filled.replace("| `submit_429` |", "| `of_old` |")
    assert spoilt != filled
    assert write_page(spoilt) == filled
    with pytest.raises(PageError, match="submit:begin"):
        write_page("a page without markers")


@pytest.mark.parametrize(
    ("statuses", "words"), [([503], "503"), (range(500, 600), "500-599"), ({400, 422, 406, 401}, "400-401 406 422")]
)
def test_statuses_are_written_shortly(statuses: list[int], words: str) -> None:
    """Runs as ranges."""
    assert numbers(statuses) == words


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("status", [None, 200, 429, 500, 599])
def test_explain_gives_rule_and_source_of_any_failure(
    stage: Stage, status: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON exactly five keys, in order; for people the rule and where it is from."""
    assert explain_one(stage, status, None, None, as_json=True) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["code", "category", "action", "rule", "source"]
    explain_one(stage, status, None, None, as_json=False)
    verdict = explain_dict(classify(Signal(stage, status)))
    printed = capsys.readouterr().out
    assert f"rule {verdict['rule']} (" in printed
    assert verdict["code"] in printed
