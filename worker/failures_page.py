"""Owns the tables of ``docs/failures.md``: the failure table in plain words, so that the page says what is done.

Pure but for ``main``. The page's prose is written by hand, and what lies between its other markers is another tool's.
``python -m worker.failures_page`` rewrites it; a test compares it with the table.
"""

import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from jobs import meanings, refusals
from jobs.failures import NOMINAL, RULES, Rule
from jobs.lexicon import Meaning
from jobs.verdict import NOT_SENT, Acceptance, Patience, Reset, Stage, Transport
from worker.explain import SOURCES

PAGE = Path("docs/failures.md")

MEANINGS = {  # what the words of ``jobs.meanings`` and ``jobs.refusals`` say, where its name does not say it
    "CDN": "a CDN's error page",
    "CDN_BLOCK": "a CDN's block page",
    "PARAMETER_RULE": "what a parameter has to be",
    "REFUSAL": "a verdict on the content",
    "POLICY": "a word of content policy",
    "TIME_OUT": "a time-out",
    "BREAKDOWN": "something broken on their side",
    "PROVIDER_ACCOUNT": "the gateway's own account with its provider",
    "PLUMBING": "a part of their machinery",
    "DELIVERY": "their product got lost",
    "INPUT": "what is wrong with the input",
    "FAILED": "that it failed, and no more",
    "TASK_MISSING": "the task is not known",
    "MODEL_MISSING": "there is no such model",
    "MODEL_UNSUPPORTED": "the model is not supported",
    "NAMES_INPUT": "a part of the input is named",
    "MODEL": "a model is named",
    "SUSPENDED": "the project or account is suspended",
    "BALANCE": "the balance",
    "VAGUE_REQUEST": "a bad request, and no more",
    "MINUTE": "a limit per minute",
    "ROLLING": "a limit per 24 hours or of free models",
    "MONTHLY": "a limit per month",
    "DAILY": "a limit per day",
    "ACCOUNT": "the account",
}
RESETS = {
    Reset.BURST: "within 10 s",
    Reset.MINUTE: "within a minute",
    Reset.DAY: "at `QUOTA_RESET`",
    Reset.MONTH: "on the 1st, at `QUOTA_RESET`",
    Reset.ROLLING_DAY: "after 24 h",
}
ACCEPTANCES = {Acceptance.NO: "no", Acceptance.YES: "yes", Acceptance.UNKNOWN: "unknown"}
COLUMNS = ("rule", "when", "code", "category", "action", "accepted", "counts", "patience", "resets", "source")
OF_CODES = ("code", "category", "action", "whose problem", "our words, where the gateway gives none")

_WORDS = {
    id(words): name
    for module in (meanings, refusals)
    for name, words in vars(module).items()
    if isinstance(words, Meaning)
}


class PageError(ValueError):
    """The page has no place for a table; the message says which markers are missing."""


def write_page(page: str) -> str:
    """Put the tables into a page, each between its markers; all else stays. Raises ``PageError``."""
    for name, table in tables().items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, begun, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise PageError(f"{PAGE} needs the lines {begin.strip()} and {end}")
        page = f"{before}{begin}{table}\n{end}{after}"
    return page


def tables() -> dict[str, str]:
    """Make the tables: one for each stage, one for what is decided on this side, one of the codes."""
    stages = {str(stage): [_row(rule) for rule in RULES if stage in rule.stages] for stage in Stage}
    stages["own"] = [_row(rule) for rule in RULES if not rule.stages]
    codes = [
        (f"`{code}`", str(category), f"`{action}`", str(scope), words)
        for code, (category, action, scope, words) in NOMINAL.items()
    ]
    return {name: _table(COLUMNS, rows) for name, rows in stages.items()} | {"codes": _table(OF_CODES, codes)}


def _row(rule: Rule) -> tuple[str, ...]:
    category, action, *_ = NOMINAL[rule.code]
    return (
        f"`{rule.name}`",
        when(rule),
        f"`{rule.code}`",
        str(rule.category or category),
        f"`{rule.action or action}`",
        ACCEPTANCES[rule.acceptance],
        "yes" if rule.counts else "no",
        _patience(rule.patience),
        RESETS[rule.resets] if rule.resets else "",
        SOURCES[rule.source],
    )


def when(rule: Rule) -> str:
    """Say in plain words when a row matches: every condition holds."""
    if not rule.stages:
        return "this side says so"
    return ", ".join(_conditions(rule)) or "anything else"


def _conditions(rule: Rule) -> Iterator[str]:
    if rule.statuses is not None:
        yield f"HTTP {numbers(rule.statuses)}"
    if rule.codes is not None:
        yield "code " + " ".join(f"`{code}`" for code in sorted(rule.codes))
    if rule.transports is not None:
        yield _transports(rule.transports)
    if rule.enveloped is not None:
        yield "in the gateway's envelope" if rule.enveloped else "not in the gateway's envelope"
    if rule.words is not None:
        yield f"its words say: {_meaning(rule.words)}"
    if rule.unless:
        yield "and not: " + " or ".join(_meaning(veto) for veto in rule.unless)


def _meaning(words: Meaning) -> str:
    name = _WORDS.get(id(words), "something else")
    return MEANINGS.get(name, name.lower().replace("_", " "))


def _transports(transports: Collection[Transport]) -> str:
    if set(transports) == set(Transport):
        return "no whole answer"
    words = " ".join(f"`{transport}`" for transport in Transport if transport in transports)
    return f"{'never sent' if set(transports) <= NOT_SENT else 'sent, and no whole answer'}: {words}"


def numbers(statuses: Collection[int]) -> str:
    """Write statuses shortly, runs of them as ranges."""
    runs: list[list[int]] = []
    for status in sorted(statuses):
        if runs and status == runs[-1][-1] + 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _patience(patience: Patience | None) -> str:
    return f"{patience.count} times, {patience.duration_s:g} s" if patience else ""


def _table(columns: Collection[str], rows: Collection[tuple[str, ...]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    """Rewrite the page, in the working directory."""
    before = PAGE.read_text(encoding="utf-8")
    page = write_page(before)
    if page != before:
        PAGE.write_text(page, encoding="utf-8")
        sys.stdout.write(f"{PAGE} rewritten\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
