"""Owns how a meaning is made of words, and which meanings a text has: every way to say each of them, in one pass.

A way is a regular expression that begins at a word and names families of words in angle brackets. Ways are found by the
first letters of the words they can begin with, so a text costs what its own words cost, however many ways there are.
Must not know what is meant (``jobs.meanings``), nor what follows from it (``jobs.failures``).
"""

import functools
import re
from collections.abc import Iterator

# A family may name those below it.
FAMILIES = {
    "<bad>": r"(?:invalid|illegal|malformed|(?<!went )wrong|incorrect|bad|unknown|unrecogni[sz]ed|corrupt\w*|"
    r"unreadable|unsupported|unaccept\w+|inaccessible|unreachable|broken|damaged|truncated|undefined|undecodable|"
    r"improper|mismatch\w*|incompatible|non ?existent|gecersiz|hatali|yanlis|bozuk)",
    "<param>": r"(?:param\w*|arguments?|values?|formats?|prompts?|sizes?|aspect|ratios?|resolutions?|durations?|"
    r"voices?|languages?|seeds?|dimensions?|fields?|types?|options?|ids?|styles?|modes?|lengths?|base64|json|body|"
    r"payload|text|lyrics|tags?|quality|fps|frames?|widths?|heights?|mime|encoding|codec|speakers?|titles?|scripts?|"
    r"captions?|schema|locale|key|personas?|presets?|samples?|bitrate|strength|scale|steps?|loras?|characters?|"
    r"propert\w+|keys|items?|content type|uri|<media>)",
    "<girdi>": r"(?:gorsel|resim|fotograf|dosya|video|ses|muzik|url|baglanti|adres|deger|girdi|giris|istek|bicim|"
    r"boyut|sure|parametre|alan|istem|prompt|metin|oran|cozunurluk|kimli|format|dil|sarki|uzunlu|maske|anahtar|"
    r"secenek|ayar|tur)\w*",
    "<review>": r"(?:moderation|moderators?|censorship|risk (?:control|detection|management|check)|guardrails?|"
    r"compliance|nsfw|safety|sensitive|(?:content|safety|security|image|text|prompt|input|output|risk|audio|video|"
    r"polic(?:y|ies)|platform|copyright|legal|lyrics|usage|likeness|data) (?:safety |security )?(?:review|check|"
    r"checks|checker|checkers|audit|inspection|screening|control|filters?|filtering|polic(?:y|ies)|rules?|"
    r"guidelines?|standards?|restrictions?|detection|detector|verification|classifiers?|system))",
    "<refused>": r"(?:block(?:ed|s)?|reject(?:ed|s|ion)?|refus(?:ed|es|al)|declin(?:ed|es)|denied|filtered|flagged|"
    r"flags|censored|withheld|suppressed|moderated|intercepted|removed|stopped|prevented|disallow(?:ed|s)|"
    r"prohibit(?:ed|s)|forbid(?:s|den)|banned|restricted|redacted)",
    "<content>": r"(?:contents?|prompts?|lyrics|materials?|text|words?|descriptions?|topics?|subjects?|themes?|"
    r"keywords?|terms?|phrases?|scenes?)",
    "<theirs by>": r" (?:connection|(?:by|until|since|because) (?:the |a |an |our )?(?:server|worker|scheduler|queue|"
    r"bucket|storage|host|node|another|machine|payment|maintenance)|no (?:free|available)|too many|right now)",
    "<media>": r"(?:images?|videos?|audios?|files?|urls?|media|inputs?|references?|photos?|pictures?|links?|masks?|"
    r"assets?|attachments?|songs?|tracks?|clips?|uploads?)",
    "<polic>": r"(?:polic(?:y|ies)|guidelines?|standards?|terms|rules|principles|code of conduct|aup|tos)",
    "<cannot>": r"(?:can not|could not|failed to|failure to|unable to|fails? to|failing to|not able to|impossible to)",
    "<theirs>": r"(?:servers?|services?|system|backend|api|models?|provider|worker|engine|endpoint|moderation|"
    r"moderator|checker|classifier|filter|validator|detector|scanner|reviewer|review|cluster|node|pool|gateway|cdn|"
    r"storage|bucket|scheduler|queue|renderer|vendor|supplier|pipeline|partner|pod|container|replica|instance|store|"
    r"cache|broker)",
    "<is>": r"(?:(?:is|are|was|were|has|have|had|be|been|being|got|seems?|looks?|appears?|to|may|might|also) )*",
    "<span>": r"(?:s|secs?|seconds?|m|mins?|minutes?|hours?|h|ms|time|window|limit|deadline|period|budget)\b",
    "<word>": r"[^\s|]{1,40} ",
    "~": r"[^|]{0,40}?",  # a gap, inside one sentence
}
_KEY_CHARS = 3  # how much of its first word a way is found by

_WORD = re.compile(r"\w+")
_BEGINS = re.compile(r"[a-z0-9]+")
_LOOK = re.compile(r"\(\?<?[!=]")
_REPEAT = re.compile(r"[?*+]\??|\{\d*,?\d*\}\??")
_PIECE = re.compile(r"\\.|\[(?:\\.|[^\]])*\]|\(\?(?:<?[!=]|:)|[()|]|[^\\\[()|]+")


class Meaning:
    """Something that can be said in many ways, each beginning at a word; Chinese knows no words to begin at."""

    def __init__(self, *ways: str, chinese: str = "") -> None:
        """Enter every way under the letters it can begin with."""
        for way in ways:
            pattern = _expanded(way)
            for key in set(_keys(pattern)):
                _WAYS.setdefault(key, []).append((self, pattern))
        if chinese:
            _CHINESE.append((self, chinese))


_WAYS: dict[str, list[tuple[Meaning, str]]] = {}
_CHINESE: list[tuple[Meaning, str]] = []


@functools.lru_cache(maxsize=64)
def meanings_of(text: str) -> frozenset[Meaning]:
    """Find what a folded text means: none, one or several meanings."""
    found: set[Meaning] = set()
    for word in _WORD.finditer(text):
        start, letters = word.start(), word.group()[:_KEY_CHARS]
        for size in range(1, len(letters) + 1):
            for meaning, way in _WAYS.get(letters[:size], ()):
                if meaning not in found and _compiled(way).match(text, start):
                    found.add(meaning)
    if not text.isascii():
        found.update(meaning for meaning, way in _CHINESE if _compiled(way).search(text))
    return frozenset(found)


_compiled = functools.cache(re.compile)  # the first time it is needed: most ways never are


def _expanded(way: str) -> str:
    for family, members in FAMILIES.items():
        way = way.replace(family, members)
    return way


def _keys(pattern: str) -> Iterator[str]:
    """Walk the beginnings of the words that a pattern can begin with; raise ``ValueError`` where it could be any."""
    for way in _split(pattern):
        if way.startswith("(?:"):
            group, rest = _first_group(way)
            yield from _keys(group[3:-1])
            repeat = _REPEAT.match(rest)
            if repeat and repeat.group().startswith(("?", "*", "{0")):
                yield from _keys(rest[repeat.end() :])
        elif _LOOK.match(way):
            yield from _keys(_first_group(way)[1])
        else:
            begins = _BEGINS.match(way)
            letters = begins.group() if begins else ""
            if begins and _REPEAT.match(way, begins.end()) and way[begins.end()] in "?*{":
                letters = letters[:-1]
            if not letters:
                raise ValueError(f"a way must begin with letters: {way[:60]}")
            yield letters[:_KEY_CHARS]


def _split(pattern: str) -> list[str]:
    """Part a pattern at the bars that stand in no group."""
    parts, depth = [""], 0
    for piece in _PIECE.findall(pattern):
        depth += piece.startswith("(") - (piece == ")")
        if piece == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _first_group(pattern: str) -> tuple[str, str]:
    """Part a pattern after the group it begins with."""
    depth, end = 0, 0
    for piece in _PIECE.finditer(pattern):
        depth += piece.group().startswith("(") - (piece.group() == ")")
        end = piece.end()
        if depth == 0:
            break
    return pattern[:end], pattern[end:]
