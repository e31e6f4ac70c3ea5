"""Owns how the words of a failure are read: folded into what a pattern can match, or cut into what can be shown.

Must not know what any word means (``jobs.meanings``). A pattern sees folded text only: ASCII, lower case, no
diacritics (so Turkish needs one spelling; Chinese stays as it is), words parted by one space and rid of quotes and
brackets, sentences by ``|``, every URL the word ``url``, every negation the word ``not``. What only looks as if it
said something is taken out: the name of a parameter that holds a word of policy, the assurance that nothing was paid.
"""

import re
import unicodedata

READ_CHARS = 600  # how much of a message is read: what a failure means stands at its beginning
SHOWN_CHARS = 500

_TO_ASCII = str.maketrans({"ı": "i", "’": "'", "‘": "'", "…": ".", "。": ". "})  # noqa: RUF001 - the ones to fold
_URL = re.compile(r"\b(?:https?|data)(?:://|:image/)\S*", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SENTENCE_END = re.compile(r"(?<!\b[Mm](?:ax|in))[.!?;~](?:\s+|$)|\n")
_TO_SPACE = str.maketrans(dict.fromkeys('-_"`“”«»*()[]{},=', " "))
# A colon, a dot or a quote where it says nothing: no time of day, no decimal, no apostrophe.
_MARK = re.compile(r":(?!\d)|\.(?=\s)|(?<=[^\W\d])\.(?=[^\W\d])|(?<![^\W\d])'|'(?![^\W\d])")
_NAME_OF_500 = re.compile(r"^\W*(?:internal[ _])?(?:server[ _])?error(?:\s*[:\-]\s*(?=\S)|\W*$)", re.IGNORECASE)

_SAME = (  # said in several ways, read in one; in this order
    (re.compile(r"\bcan ?(?:not|'t)\b|\bcant\b"), "can not"),
    (re.compile(r"\bwon'?t\b"), "will not"),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|had|must|should|would|could|need)n'?t\b"), r"\1 not"),
)
_SAYS_NOTHING = (
    (re.compile(r"\b(?:request|req|trace|log|support|ref|reference|session|correlation) (?:ids?|codes?|no)\b"), "ref"),
    (re.compile(r"\bunsafe (?=url|uri|scheme|link|character)"), "invalid "),
    (re.compile(r"\b(limit|length|size|schema|format) (?:was |is )?violated\b"), r"\1 exceeded"),
    (re.compile(r"\b(?:case|latency|time|order|cost|position|space|accent) sensitiv(?:e|ity)\b"), "specific"),
    (
        re.compile(
            r"\b(?:safety tolerance|safety filter level|enable \w{1,12} (?:checker|filter)|moderation level|"
            r"person generation|safety settings?(?= (?:must|should|has|have|is|are) ))\b"
        ),
        "parameter",
    ),
    (re.compile(r"\bno (?:credits?|points?|tokens?|balance|money)(?: \w{1,12}){1,3} (?:charged|deducted|used|spent|"
                r"consumed|taken|billed)\b"), "free"),
)  # fmt: skip


_APOLOGY = re.compile(
    r"\W*(?:sorry,? )?(?:an? |some )?(?:unexpected |unknown |internal )?(?:server )?(?:error|problem|issue)"
    r"(?: (?:has |have )?(?:occurred|happened))?\W*(?:please )?(?:try again(?: later)?)?\W*",
    re.IGNORECASE,
)


def fold(message: str | None, code: str | None = None, *, beside_500: bool = False) -> str:
    """Fold a message, and the words of a code that is no number, into what the patterns read.

    Where the message is but an apology the code speaks alone.

    ``beside_500``: the status has said "internal server error" already; as a label it is left out.
    """
    parts = [message or ""]
    if code and not code.isdigit():
        parts = [code] if _APOLOGY.fullmatch(parts[0][:READ_CHARS]) else [*parts, code]
    if beside_500:
        parts = [_NAME_OF_500.sub("", part[:READ_CHARS], count=1) for part in parts]
    return " | ".join(_fold(part[:READ_CHARS]) for part in parts)


def _fold(text: str) -> str:
    plain = _URL.sub(" url ", text)
    if not plain.isascii():
        plain = unicodedata.normalize("NFKD", plain.translate(_TO_ASCII))[: 2 * READ_CHARS]
        plain = "".join(char for char in plain if not unicodedata.combining(char))
    plain = _SENTENCE_END.sub(" | ", _HUMP.sub(" ", plain)).casefold().translate(_TO_ASCII)
    plain = " ".join(_MARK.sub(" ", plain.translate(_TO_SPACE)).split())
    for way, word in (*_SAME, *_SAYS_NOTHING):
        plain = way.sub(word, plain)
    return plain


_TAG = re.compile(r"<[^<>]*>?")


def shown(text: str | None) -> str | None:
    """Cut a text of others to one bounded line without control characters or a page's tags; None for nothing left."""
    if (text or "").lstrip().casefold().startswith(("<html", "<!doctype")):
        text = _TAG.sub(" ", (text or "")[:READ_CHARS])
    kept = " ".join("".join(c if c.isprintable() else " " for c in (text or "")[:READ_CHARS]).split())
    return (kept if len(kept) <= SHOWN_CHARS else f"{kept[: SHOWN_CHARS - 1]}…") or None
