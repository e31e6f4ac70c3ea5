"""Owns what the words of a failure mean: how a message is folded, and one pattern for each meaning.

Must not know a stage, a status or a verdict: those are rows of ``jobs.failures``, whose order says which meaning wins.
A pattern sees folded text only: ASCII, lower case, no diacritics (so Turkish needs one spelling), words parted by one
space, sentences by ``|``, every URL the word ``url``. A gap between two words stays inside one sentence and is bounded,
so that no message costs more than a bounded number of steps a character.

Sources: the shared corpus (seen), KieAI's and model makers' public messages (kie, seen); the Turkish is assumed.
"""

import re
import unicodedata

READ_CHARS = 2_000  # how much of a message is read: what a failure means stands at its beginning
SHOWN_CHARS = 500

_TO_ASCII = str.maketrans({"ı": "i", "’": "'", "‘": "'", "…": "."})  # noqa: RUF001 - these are the ones to fold
_URL = re.compile(r"\b(?:https?|data)(?:://|:image/)\S*", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SENTENCE_END = re.compile(r"[.!?;~](?:\s+|$)|\n")
_BREAK = re.compile(r"[\s_\-]+")


def fold(message: str | None, code: str | None = None) -> str:
    """Fold a message, and the words of a code that is no number, into what the patterns read."""
    parts = [message or ""]
    if code and not code.isdigit():
        parts.append(code)
    return " | ".join(_fold(part[:READ_CHARS]) for part in parts)


def _fold(text: str) -> str:
    text = _URL.sub(" url ", text)
    plain = unicodedata.normalize("NFKD", text.translate(_TO_ASCII))
    plain = _HUMP.sub(" ", "".join(char for char in plain if not unicodedata.combining(char)))
    plain = _SENTENCE_END.sub(" | ", plain[: 2 * READ_CHARS]).casefold().translate(_TO_ASCII)
    return _BREAK.sub(" ", plain).strip()


def shown(text: str | None) -> str | None:
    """Cut a text of others to one bounded line without control characters; None where nothing is left."""
    kept = " ".join("".join(c if c.isprintable() else " " for c in (text or "")[:READ_CHARS]).split())
    return (kept if len(kept) <= SHOWN_CHARS else f"{kept[: SHOWN_CHARS - 1]}…") or None


_SHORTHAND = {
    "~": r"[^|]{0,40}?",  # a gap, inside one sentence
    "<word>": r"\w{1,24} ",
    "<cannot>": r"(?:could ?n.t|could not|can ?not|can.t|failed to|failure to|unable to|fails? to|was not able to)",
    "<media>": r"(?:images?|videos?|audios?|files?|urls?|media|inputs?|references?|photos?|pictures?|links?|masks?)",
}


def _meaning(*ways: str) -> re.Pattern[str]:
    """Compile the ways to say one thing, each beginning at a word."""
    pattern = "|".join(ways)
    for short, long in _SHORTHAND.items():
        pattern = pattern.replace(short, long)
    return re.compile(rf"\b(?:{pattern})")


# ---- inside a generation failure, in the order in which the rows ask ----

PARAMETER_RULE = _meaning(  # says what a parameter has to be: nothing that breaks down says that
    r"must be (?:one of|between|in (?:the )?range|a multiple of|an? (?:integer|number|string|boolean|array|list)\b)",
    r"(?:not|n't) (?:with)?in the (?:range|list|set) of (?:allowed|valid|supported)",
    r"(?:missing|lacks) (?:a |the )?(?:required|mandatory) (?:field|param|argument|propert|input|key|value)",
)

REFUSAL = _meaning(  # a verdict on content, not just a word of that field
    r"(?:violat\w+|breach\w*|contraven\w+|infring\w+|contrary to|against|not (?:compl\w+|conform\w*|adhere)) ~"
    r"(?:polic(?:y|ies)|guidelines?|standards?|terms|rules|principles)\b",
    r"(?:content|usage|safety|community|moderation|acceptable use|use) (?:polic(?:y|ies)|guidelines?|standards?|"
    r"rules?) "
    r"(?:was |were |is |has been )?(?:violat\w+|blocked|rejected|breach\w*|refus\w+|restrict\w+|denied)",
    r"(?:blocked|rejected|refused|filtered|declined|denied|stopped|flagged|censored|removed) (?:~ )?(?:by|due to|for|"
    r"as|"
    r"because of|under|violating|from) (?:~ )?(?:safety|polic(?:y|ies)|moderation|content|filters?|sensitive|unsafe|"
    r"inappropriate|sexual|violen\w+|guardrails?|review|compliance|nsfw)\b",
    r"(?:was|were|been|is|are|got) flagged",
    r"icerik politika\w* (?:~)?(?:ihlal|aykiri|engel|redd)",
    r"(?:politika|kural|ilke|standart)\w* (?:~)?(?:ihlal|aykiri)",
)

TIME_OUT = _meaning(
    r"time(?:d|s)? ?out",
    r"timing out|etimedout|(?:took|taking|takes) longer than|cok uzun sur\w*",
    r"deadline (?:was )?exceeded",
    r"(?:took|taking|takes|ran|running) (?:~ )?too long",
    r"(?:exceed\w*|over) (?:the )?(?:<word>){0,3}(?:time|time limit|run ?time)\b",
    r"(?:time|run ?time)(?: limit)? (?:was |has been )?(?:exceeded|reached|expired)",
    r"(?:not|n't|never) (?:be )?(?:finish\w*|complet\w*|respond\w*|return\w*|end\w*) (?:~ )?(?:with)?in (?:the |an? )?"
    r"(?:<word>){0,3}(?:time|seconds?|minutes?|hours?|window)\b",
    r"no (?:result|response|answer)s? (?:~ )?(?:with)?in (?:~ )?(?:time|seconds?|minutes?)",
    r"(?:task|job|request|generation) (?:has |was |is )?expired",
    r"no result (?:~ )?(?:for|after) (?:~ )?(?:seconds?|minutes?|hours?)",
    r"zaman ?asim\w*",
    r"(?:sure|zaman)\w* (?:~)?(?:doldu|asildi|asti|bitti|tamamlanamadi)",
)

BREAKDOWN = _meaning(  # something of theirs broke; words of policy or input beside it mean nothing
    r"internal (?:<word>){0,2}(?:error|failure|exception|fault|problem|issue)",
    r"(?:server|service|system|backend|worker|engine|node|database|storage|network|infrastructure|hardware|cluster) "
    r"(?:side )?(?:error|failure|exception|fault|problem|issue|outage)",
    r"(?:servers?|services?|system|backend|api|models?|provider|worker|engine|endpoint|moderation|moderator|checker|"
    r"classifier|filter|validator|detector|scanner|reviewer|review|cluster)\b:? (?:<word>){0,4}(?:unavailable|"
    r"unreachable|"
    r"offline|down|failing|unresponsive|not (?:available|respond\w*|reachable|running|ready|loaded)|restart\w*|"
    r"did(?: not|n't) (?:respond|answer|return|load|start))\b",
    r"(?:temporarily|currently|momentarily) (?:<word>)?(?:unavailable|not available|down|offline|out of service)",
    r"service unavailable|outage|(?:under|for|scheduled) maintenance|(?:being|is) maintained|bakim(?:da|daki|i)?\b",
    r"(?:<cannot>) (?:reach|connect|contact|call|start|load|initiali\w+|allocate|acquire|schedule)\b (?:~ )?"
    r"(?:servers?|services?|backend|models?|moderation|checker|classifier|filter|worker|gpu|provider|weights|node|"
    r"memory|engine|pipeline|validator|upstream|api|database|storage)\b",
    r"overload\w*|over ?(?:capacity|whelmed)|(?:at|no|full|insufficient|limited|out of) (?:<word>)?(?:capacity|"
    r"resources?)",
    r"(?:\w+ )?busy\b|(?:high|heavy|too much|excessive|peak) (?:load|traffic|demand|volume)|load (?:is )?too high|"
    r"yogun",
    r"out of (?:gpu |video )?memory|oom\b|cuda|gpus?\b|vram",
    r"crash(?:ed|es|ing)?\b|segfault|core dump|traceback|null ?pointer|unexpected null|none ?type|unhandled|panic\w*",
    r"(?:exception|stack ?trace|assertion error|runtime error|key error|index error)\b",
    r"(?:server|service|system|api|engine) (?:<word>){0,2}(?:returned|threw|raised|responded with|gave) (?:an )?error",
    r"(?:servers?|services?|backend|api|engine|worker) (?:has |have )?fail\w*",
    r"(?:reject|refus|reset|clos|dropp)\w* (?:the )?connection|lost connection",
    r"connection (?:was |has been )?(?:reset|refused|closed|aborted|error|lost|failed|dropped|broken)|broken pipe",
    r"socket|econn\w+|bad gateway|gateway (?:error|timeout)|dns\b|ssl\b|http 5\d\d|50[0-4] (?:error|bad|service|"
    r"internal)",
    r"(?:<cannot>|error|problem) (?:while |when |in )?(?:upload|sav|stor|deliver|persist|writ|transfer|publish|encod|"
    r"render|post ?process|merg)\w*",
    r"(?:upload|storage|delivery|callback|webhook|encoding|rendering|"
    r"post ?processing) (?:of (?:~ )?)?(?:has )?(?:failed|error)",
    r"content delivery|cdn\b|database|deadlock|disk (?:full|error)|no space left|bug\b",
    r"(?:unexpected|unknown|unspecified|system|fatal) (?:<word>)?(?:error|failure|exception)",
    r"sunucu|(?:servis|hizmet|sistem)\w* (?:~)?(?:hata|kullanilam|yanit verm|cevap verm|ulasilam|erisilem|cok)",
    r"(?:dahili|ic|sistem|beklenmeyen|bilinmeyen) (?:bir )?hata",
)

PROVIDER_ACCOUNT = _meaning(  # trap 8: the gateway's own account with its provider, not ours
    r"(?:credits?|balance|funds?|quota)\b:? (?:<word>){0,4}(?:insufficient|not enough|n't enough|exceeded|exhausted|"
    r"low|"
    r"depleted|ran out|used up)",
    r"(?:insufficient|not enough|n't enough|no|low|out of|lack of) (?:<word>){0,2}(?:credits?|balance|funds?|quota|"
    r"tokens?)\b",
    r"(?:exceed\w*|reached|hit|over) (?:<word>){0,4}(?:quota|rate limit|request limit|usage limit|concurrency|"
    r"spending)",
    r"top ?up\b|billing|payment required|subscription|recharge",
    r"(?:api|access|secret|auth\w*) ?(?:keys?|tokens?)\b|credentials?\b|unauthenticated|authentication|"
    r"access permissions?",
    r"unauthori[sz]ed(?! (?:use|content|copy|repro|likeness|depict))|permission denied|(?:your|the|provider|"
    r"this) account (?:is|was|has|does|need)",
    r"rate ?limit\w*|request rate|too many (?:<word>){0,2}(?:requests?|tasks?|jobs?|users?|calls?|connections?)",
    r"(?:call|request) frequency|requests? per (?:second|minute)|throttl\w+|concurren\w+",
    r"bakiye|kredi\w* (?:~)?(?:yetersiz|yok|bitti|doldu)|yetersiz (?:kredi|kota)|kota\w* (?:~)?(?:asil|doldu|bitti)",
    r"(?:cok fazla|sik) istek|istek (?:limit|sinir)\w*|api anahtar\w*|yetkisiz erisim|gunluk limit|aylik limit",
)

PLUMBING = _meaning(  # weaker than a breakdown: outweighs a word of policy or input, not a verdict on content
    r"upstream|backend|infrastructure|microservice|(?:inference|render|worker) (?:node|process|pod)|pipeline",
    r"(?:invalid|unexpected|empty|malformed|bad|no|missing|unparsable|incomplete|gecersiz|bos) (?:<word>){0,2}"
    r"(?:response|reply|answer|output|result|yanit|cevap|sonuc)s?\b",
    r"(?:response|reply|output|result|yanit|cevap)s? (?:~ )?(?:invalid|malformed|empty|missing|unexpected|gecersiz|"
    r"bos)\b",
    r"response validation|queue\b",
    r"(?:retries|attempts|retry limit)\b|(?:weights|checkpoint|tokenizer)\b",
    r"models? (?:<word>|\S{1,60} ){0,2}(?:is |was )?(?:not (?:found|supported|active|enabled)|unsupported|disabled|"
    r"offline)",
)

POLICY = _meaning(
    r"nsfw|not safe for work|sexual\w*|nud(?:e|es|ity)\b|porn\w*|erotic\w*|(?:sexually )?explicit\b|gore\b|"
    r"graphic content",
    r"violen(?:t|ce)\b|hate (?:speech|content)|hateful|harass\w*|self ?harm|suicid\w*|terroris\w*|extremis\w*|racis\w+",
    r"(?:image|prompt|output|video|finish reason:?) safety\b(?! (?:level|tolerance|setting))|recitation",
    r"fail\w* (?:to pass )?(?:the |our )?(?:content )?moderation|illegal (?:activit|acts?\b)|"
    r"known (?:individual|person)",
    r"csam|child (?:safety|abuse|sexual|exploit\w*)|minors\b|underage|children\b|"
    r"(?:of|involv\w+|depict\w*|contain\w*|error) (?:an? )?minor\b(?! (?:error|issue|problem|bug|fault))",
    r"(?:content |prompt |image |input |text )?moderation:? (?:<word>)?(?:block|fail|reject|flag|refus|denied|declin|"
    r"restrict|"
    r"violat|hit|trigger|polic|not passed|did not pass|filter|guard)\w*",
    r"(?:block|fail|reject|refus|flag|denied|declin|stopp|filter|not pass|n't pass)\w* (?:the |by |in |during |our |"
    r"of )*"
    r"(?:<word>)?(?:moderation|content (?:review|check|audit|filter|inspection)|safety|risk control|guardrails?|"
    r"security review)",
    r"(?:content|safety|image|text|prompt|input|security|risk|compliance) (?:safety )?(?:review|check|audit|inspection|"
    r"screening|control|test) (?:<word>)?(?:fail|reject|not pass|block|refus|did)\w*",
    r"safety (?:system|filter|polic|guideline|setting|reason|guardrail|violation|block|concern|restriction|measure|"
    r"rating|"
    r"issue|error|rule|standard|threshold|attribute)\w*",
    r"(?:(?<!case )(?<!time )(?<!position ))sensitive\b(?! (?:to|about)\b)|sensitive (?:word|content|info|topic)\w*",
    r"unsafe|inappropriate|offensive|obscene|indecent|objectionable|vulgar|profan\w+|disturbing|harmful|hazardous",
    r"(?:prohibited|forbidden|disallowed|restricted|banned|illegal|blocked|blacklisted|not allowed|unacceptable) "
    r"(?:<word>)?(?:contents?|words?|uses?|materials?|subjects?|topics?|terms?|prompts?|images?|keywords?|phrases?|"
    r"categor)",
    r"(?:content|prompt|request|image|lyrics|material)\w* (?:<word>){0,3}(?:prohibited|forbidden|disallowed|restricted|"
    r"banned|"
    r"not (?:allowed|permitted)|rejected|refused|blocked|declined|filtered|censored|withheld|unacceptable)\b",
    r"(?:prohibited|content|contents) (?:policy|policies|filter\w*|restrict\w*|violat\w*|guidelines?|standards?|"
    r"blocked)",
    r"(?:real|actual|living|identifiable|recogni[sz]able|famous|prominent|private|well known|specific) (?:<word>)?"
    r"(?:person|persons|people|humans?|individuals?|faces?|figures?)\b",
    r"celebrit\w+|public (?:figure|person)\w*|likeness\w*|deep ?fake\w*|impersonat\w+|politician\w*",
    r"copyright\w*|trademark\w*|intellectual property|infring\w+|plagiari\w+|existing (?:work|song|music|track|"
    r"recording)s?|"
    r"(?:protected|licensed|third party) (?:work|character|material|content|lyric|music|brand)\w*|public domain",
    r"(?:usage|use|content|community|safety|our|platform|acceptable use|service) (?:polic(?:y|ies)|guidelines)\b",
    r"polic(?:y|ies) (?:violat|breach|block|refus|reject|restrict)\w*|violat\w+|guardrail\w*|responsible ai|"
    r"filtered out",
    r"(?:model|provider|system|we) (?:<word>){0,2}(?:refuse[sd]?|declined?|will not|won't) (?:to )?(?:generate|create|"
    r"produce|"
    r"render|fulfil\w*|answer)|artist names?\b",
    r"uygunsuz|sakincali|mustehcen|hassas (?:~)?(?:icerik|kelime|ifade)|yasak\w* (?:~)?(?:icerik|kelime|ifade)|telif|"
    r"cinsel",
    r"icerik \w* ?(?:denetim|inceleme|filtre|moderasyon|redd|engel|yasak|guvenli|uygun)\w*|moderasyon|"
    r"guvenlik filtre\w*",
    r"ihlal|topluluk (?:kural|ilke|standart)\w*|(?:gercek|unlu|tanin\w+) (?:bir )?kisi\w*|ciplak\w*|siddet icer\w*|"
    r"mustehcen",
    r"guvenlik (?:sistemi|politika|kural)\w*|kufur|nefret",
)

DELIVERY = _meaning(  # their product got lost, not our input
    r"(?:generated|resulting|final|finished|produced|rendered) (?:<word>)?(?:image|video|audio|file|media|url|asset|"
    r"track|clip)",
    r"output (?:file|url)s?\b|(?:the |task )?results?\b (?:url|file|was|could|is|were)",
)

INPUT = _meaning(
    r"(?:invalid|illegal|malformed|wrong|incorrect|bad|unknown|unrecogni[sz]ed|corrupt\w*|unreadable|gecersiz|hatali) "
    r"(?:or (?:<word>){1,3})?(?:<word>){0,3}(?:param\w*|arguments?|values?|inputs?|formats?|prompts?|images?|videos?|"
    r"audios?|"
    r"urls?|files?|sizes?|durations?|aspect|ratios?|resolutions?|voices?|languages?|seeds?|dimensions?|fields?|types?|"
    r"options?|ids?|masks?|styles?|modes?|lengths?|base64|json|body|payload|text|lyrics|tags?|quality|fps|frames?|"
    r"widths?|"
    r"heights?|references?|requests?|mime|encoding|codec|photos?|speakers?|gorsel|gorseller|deger|girdi|giris|istek|"
    r"bicim|boyut|sure|parametre\w*|model|istem|dosya|adres|baglanti|oran|cozunurluk)\b",
    r"invalid [a-z]{1,12}(?: [a-z]{1,12})?:|not an? valid|(?:not|n't) (?:a )?valid\b|(?:is|are|was|were) invalid\b",
    r"(?:resolution|duration|aspect ratio|voice|language|format|quality|size|style|mode) (?:\S{1,40} ){0,2}"
    r"(?:is |are )?(?:not available|unavailable)\b",
    r"unexpected (?:values?|types?)\b|(?:not|n't) allowed\b|expected (?:at (?:most|least) |exactly |up to )?\d+ |"
    r"(?:maximum|minimum|at most|at least|no more than|up to) (?:of )?\d+ (?:<word>)?(?:images?|files?|items?|"
    r"references?|"
    r"characters?|words?|seconds?|inputs?|frames?|tags?|urls?|mb)\b",
    r"unsupported|(?:not|n't) (?:currently |yet )?(?:supported|support|accepted|recogni[sz]ed)\b",
    r"only (?:~ )?(?:supported|allowed|accepted|available|permitted|supports?|accepts?|valid)\b|(?:supports?|"
    r"accepts?) only\b",
    r"(?:must|should|has to|have to|needs? to) (?:not )?(?:be|have|contain|match|include|provide|start|end|exceed|use|"
    r"specify)\b",
    r"(?:can ?not|can.t|may not|must not) be (?:empty|null|blank|negative|zero|used (?:with|together)|greater|less|"
    r"more|longer|"
    r"larger|smaller|both|combined|omitted|parsed|decoded|read|opened|over|under|above|below)\b",
    r"(?:exceed\w*|over|above|beyond|greater than|larger than|longer than|more than|out of|outside|below|under|"
    r"less than|"
    r"smaller than|shorter than) (?:the |of |our |its )*(?:<word>){0,3}(?:max\w*|min\w*|limit\w*|lengths?|size|range|"
    r"allowed|"
    r"permitted|durations?|characters?|pixels?|px|mb|kb|seconds?|bounds|dimensions?|tokens?|words?)\b",
    r"(?:characters?|sizes?|lengths?|durations?|resolution|tokens?|width|height|dimensions?|prompt|image|video|audio|"
    r"file|text) "
    r"(?:<word>){0,3}(?:exceed\w*|out of range|over limit)|maximum (?:<word>){0,4}exceeded|(?:max|"
    r"min)\w* (?:<word>){1,3}is \d",
    r"too (?:long|short|large|small|big|wide|tall|narrow|blurry|heavy|noisy)\b|too few\b|"
    r"too many (?:<word>)?(?:images?|characters?|words?|tokens?|files?|references?|inputs?|param\w*|tags?|frames?)|"
    r"(?:resolution|duration|values?|quality|fps|bitrate|volume|scale|strength) (?:<word>){0,2}too (?:high|low)",
    r"missing (?:<word>){0,4}(?:field|param|argument|prompt|image|url|input|value|propert|file|voice|text|audio|video|"
    r"lyrics|title)",
    r"(?:prompt|image|url|param\w*|fields?|input|file|voice|text|lyrics|audio|video|title|style|argument)s? (?:<word>)?"
    r"(?:is |was |are )?(?:missing|empty|blank|null|undefined|required|mandatory|not provided|not specified|not set)\b",
    r"\w+ (?:is|are) (?:required|mandatory)\b(?! to (?:re|try))|requires? (?:an? |at least |the |"
    r"exactly )+(?:<word>){0,3}"
    r"(?:prompt|image|url|file|audio|video|voice|text|input|param\w*|title|style|reference)",
    r"(?:required|mandatory) (?:field|param|argument|propert|input|key|value)\w*|(?:not|n't) (?:provided|specified|"
    r"supplied)\b",
    r"no (?:valid |usable |input |reference )?(?:images?|prompts?|inputs?|files?|audio|faces?|person|speech|voices?|"
    r"human|video|"
    r"text|lyrics|vocals) (?:was |were |is |could be |has been )?(?:provided|found|detected|given|supplied|uploaded|"
    r"specified|in)\b",
    r"please (?:provide|upload (?:a|an|another)|specify|enter|shorten|reduce|resize|crop|use an?|choose|select|"
    r"supply)\b",
    r"<media> (?:~ )?(?:<cannot>|not|n't) (?:be |been )?(?:download|fetch|access|retriev|read|open|load|reach|decod|"
    r"pars|"
    r"found|resolv|exist|public|identif)\w*",
    r"(?:<cannot>|error|problem|failed|failure) (?:while |when |in )?(?:download|fetch|access|retriev|read|open|load|"
    r"reach|decod|"
    r"pars|get|identify|import|resolv)\w* (?:~ )?(?:<media>|prompt|json|body|payload|base64|lyrics)\b",
    r"<media> (?:~ )?(?:inaccessible|expired|unreachable|corrupt\w*|broken|damaged|unreadable|private|"
    r"returned? (?:http )?4\d\d)\b",
    r"(?:download|fetch)\w* (?:of )?(?:~ )?<media> (?:<word>)?(?:fail|error)\w*|<media> (?:download|fetch|"
    r"decod)\w* (?:fail|error)\w*",
    r"out of range|range of (?:allowed|valid)|(?:allowed|valid|supported|accepted|permitted|"
    r"available) (?:<word>)?(?:values?|"
    r"options?|ranges?|formats?|types?|ratios?|sizes?|resolutions?|durations?)\b|between \d+ (?:<word>)?and \d+|"
    r"expected one of",
    r"(?:validation|schema|param\w*|input|argument|type|value) (?:<word>)?(?:error|failed|failure|mismatch)\b",
    r"fail\w* (?:<word>){0,2}validat\w+|bad request|param\w* (?:is |are )?(?:wrong|incorrect|illegal)|(?:unexpected|"
    r"extra) (?:keyword|"
    r"field|param|argument|property)|(?:voice|style|template|speaker|preset)\w* (?:\S{1,40} ){0,3}(?:not found|"
    r"n't exist|not exist)",
    r"(?:eksik|zorunlu|gerekli) (?:~)?(?:parametre|alan|deger|bilgi)|(?:alan|parametre|prompt|istem|gorsel|"
    r"dosya)\w* (?:~)?"
    r"(?:eksik|zorunlu|gerekli|bos|hatali|gecersiz|belirtilm)",
    r"bos (?:olamaz|birakilamaz)|zorunlu(?:dur)?\b|olmali(?:dir)?\b|olamaz\b|parametre hata\w*|desteklenm\w+",
    r"cok (?:uzun|kisa|buyuk|kucuk)\b|(?:sinir|limit|uzunlu|boyut|karakter|azami|maksimum)\w* (?:~)?(?:asil|asiyor|"
    r"asti|asamaz|gec)",
    r"(?:gorsel|resim|dosya|video|ses|url|baglanti|adres)\w* (?:~)?(?:indirilem|erisilem|acilam|okunam|bulunam|"
    r"yuklenem)\w*",
)

FAILED = _meaning(
    r"(?:generat|creat|render|process|task|job|video|image|music|audio|produc|synthesi)\w* (?:<word>){0,3}(?:fail\w*|"
    r"error|aborted|unsuccessful)",
    r"(?:fail\w*|unable|could not|can ?not|error) (?:<word>){0,2}(?:generat|creat|render|process|complet|produc|"
    r"synthesi)\w*",
    r"something went wrong|try(?:ing)? again|retry|(?:olustur|uret|tamamla|isle)\w* ?(?:~)?(?:madi|medi|basarisiz|"
    r"hata)|basarisiz",
)

# ---- in answers to a submission or a look-up, where status and code come first ----

CDN = re.compile(r"^error code:? ?\d{3,4}\b")
CDN_BLOCK = re.compile(r"^error code:? ?1\d{3}\b")
TASK_MISSING = _meaning(
    r"record ?info (?:is |was )?(?:null|empty|not found)",
    r"(?:tasks?|record|job|gorev|kayit)\b (?:<word>|\S{1,60} ){0,3}(?:not found|n't (?:found|exist)|not exist|is null|"
    r"unknown|bulunamadi)",
    r"(?:no such|unknown|invalid) (?:task|record|job)\b",
)
MODEL_MISSING = _meaning(
    r"model\w*:? (?:\S{1,60} ){0,3}(?:not found|n't exist|not exist|not active|inactive|n't (?:be )?found|bulunamadi|"
    r"mevcut degil|aktif degil)",
    r"(?:no such|unknown|nonexistent|non existent) model",
)
MODEL_UNSUPPORTED = _meaning(
    r"model\w*:? (?:\S{1,60} ){0,2}(?:is |was )?(?:currently |yet )?(?:not (?:currently |yet )?supported|unsupported|"
    r"desteklenm\w+)",
    r"unsupported model|(?:not|n't) support (?:this |the )?model",
)
MODEL_BLOCKED = _meaning(r"model\w* (?:~)?(?:blocked|block listed|engel|yasak|not allowed for|izin veril)")
BALANCE = _meaning(
    r"(?:insufficient|not enough|no) (?:<word>)?(?:balance|credits?|funds?)",
    r"(?:balance|credits?|funds?)\b:? (?:<word>){0,3}(?:insufficient|not enough|n't enough|too low)",
    r"yetersiz bakiye|bakiye\w* (?:~)?(?:yetersiz|yok|doldu|bitti)",
)
VAGUE_REQUEST = _meaning(r"(?:invalid|bad|malformed|gecersiz|hatali) (?:request|istek|json|body|govde)")
MINUTE = _meaning(r"per (?:minute|second)|minute|dakika|saniye|requests?/(?:min|s)")
ROLLING = _meaning(r"(?:with)?in (?:a )?24 ?h|24 saat|free (?:model|tier|plan)|ucretsiz")
MONTHLY = _meaning(r"month\w*|aylik|bu ay\b|ay(?:in)? (?:~)?(?:basi|sonu|ilk)")
DAILY = _meaning(r"daily|per day|a day|today|tomorrow|24 ?h|gunluk|bugun|yarin|quotas?\b|kota")
ACCOUNT = _meaning(
    r"(?:project|account|organi[sz]ation|customer|api key|suspended|proje|hesap|hesab|musteri|askiya|anahtar)"
)
