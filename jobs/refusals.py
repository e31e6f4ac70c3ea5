"""Owns what the words of a refusal mean, in an answer to a submission or a look-up, where status and code come first.

What they say of content and input means the same as inside a generation failure: that is ``jobs.meanings``.
"""

from jobs.lexicon import Meaning

_CDN_CODE = r"(?<!.)error code ?"  # nothing before it: the whole body of a CDN's answer
_PAGE = r"doctype|html\b|cloudflare|cloudfront|akamai|fastly|ray id|nginx|varnish"
CDN = Meaning(rf"{_CDN_CODE}\d{{3,4}}\b", _PAGE)
CDN_BLOCK = Meaning(  # a wall before the gateway: it knows no account
    rf"{_CDN_CODE}1\d{{3}}\b",
    _PAGE,
    r"waf\b|firewall|captcha|you have been blocked|checking your browser|just a moment|attention required|bot "
    r"(?:detect|protect|fight)\w*|security service",
)
TASK_MISSING = Meaning(
    r"(?:record ?(?:info )?|(?:task )?(?:data|info|details?|results?|entity) )<is>(?:null|empty|missing|not (?:be "
    r")?(?:found|exist|available|ready)\w*)",
    r"(?:tasks?|record|job|prediction|generation)\w* (?:<word>){0,4}(?:not (?:be |yet )?(?:found|exist\w*|created|"
    r"ready|available|initiali\w+|known|recogni[sz]ed|visible|registered)|is null|unknown|null|missing|still "
    r"syncing)\b",
    r"(?:gorev|kayit)\w* (?:yok|(?:<word>){0,4}(?:bulunam\w+|mevcut degil))\b",
    r"(?:no such|unknown|invalid|no|<cannot> (?:find|locate)) (?:<word>)?(?:task|record|job|prediction|generation|"
    r"data)(?:s|id)?\b",
    chinese="任务不存在|记录不存在",
)
_NAME = (  # words between "model" and what is said of it: a modality is part of a name, any other noun takes its place
    r"(?:(?:text|image|video|audio|speech|reference) to (?:image|video|audio|music|speech|text) |(?!(?:voice|persona|"
    r"style|preset|template|param\w*|field|image|file|url|video|audio|lora|speaker|option)s? )<word>)"
)
MODEL_MISSING = Meaning(
    rf"model\w* {_NAME}{{0,7}}?(?:not (?:be )?(?:found|exist\w*|active|activated|known|"
    r"recogni[sz]ed|listed)|inactive|missing|bulunam\w+|(?:mevcut|aktif|kayitli|tanimli) degil|yok|bulunmuyor|"
    r"bulunmamakta\w*|taninm\w+)\b",
    r"(?:no such|unknown|nonexistent|non existent|unrecogni[sz]ed|<cannot> (?:find|locate|resolve)|not know\w*|no) "
    r"(?:a |the |any |your )?(?:<word>)?model(?:s|id)?\b(?! (?:param|version param|input))",
    r"(?:invalid|wrong|incorrect|gecersiz|hatali|bilinmeyen|not a valid|not a known) model(?:i|s)?\b(?! (?:param|"
    r"version|input|type|output|mode\b|response|config|setting|option))|model\w* (?:name |id |code |adi |kimligi "
    r")?(?:is |was )?(?:unknown|invalid|wrong|incorrect|hatali|gecersiz|yanlis|not in (?:the|our) list)\b|no model "
    r"(?:<word>){0,3}(?:found|named|called|with)|there is no (?:<word>)?model",
)
MODEL_UNSUPPORTED = Meaning(
    rf"model\w* {_NAME}{{0,7}}?<is>(?:(?:not|no longer|currently|yet) )+(?:be )?(?:supported|support|available|"
    r"offered|served|enabled)(?: (?:yet|now|anymore|any more|any longer|on|by|here|in|at|for|for now|please)\b| "
    r"?(?:\||$))",
    rf"model\w* {_NAME}{{0,7}}?<is>(?:unsupported|unavailable|deprecated|retired|discontinued|sunset|removed|"
    r"desteklenm\w+|desteklemiyor|kullanimdan|kaldiril\w+|kullanilam\w+)",
    r"unsupported (?:<word>)?model|(?:not|no longer) (?:a )?support(?:ed)? (?:by )?(?:this |the |that |such "
    r")*(?:<word>)?model|not offer (?:<word>){0,2}model|desteklenmeyen (?:bir )?model",
    chinese="(?:模型|型号)不?支持|不支持(?:该|此)?模型",
)
NAMES_INPUT = Meaning(  # at a refusal of the request itself the noun is enough
    r"(?:<media>|prompts?|durations?|resolutions?|voices?|ratios?|seeds?|lyrics|styles?|sizes?|languages?|param\w*|"
    r"fields?|fps|frames?|titles?|characters?|tags?|quality|width|height|text)\b",
    r"(?:gorsel|resim|dosya|video|ses|metin|istem|parametre|sarki|boyut|bicim)\w*",
)
MODEL = Meaning(r"models?\b|model(?:e|i|in|iniz|lere?|de|den)\b", chinese="模型")
SUSPENDED = Meaning(  # the whole project, customer or caller, whatever model was asked for
    r"(?:project|account|organi[sz]ation|customer|team|workspace|user|tenant|proje\w*|hesap\w*|hesab\w*|musteri\w*) "
    r"(?:<word>){0,3}?(?:suspend\w*|deactivat\w*|frozen|closed|terminated|banned|inactive|not active|askiya|askida|"
    r"dondur\w*|devre disi|pasif)\b",
    r"suspended|ip (?:address|adres)\w*",
)
BALANCE = Meaning(
    r"(?:insufficient|not enough|no|not sufficient) (?:<word>)?(?:balance|credits?|funds?|points)",
    r"(?:balance|credits?|funds?|points)\b (?:<word>){0,3}(?:insufficient|not (?:be )?enough|too low|exhausted)",
    r"yetersiz bakiye|bakiye\w* (?:~)?(?:yetersiz|yok|doldu|bitti)",
    chinese="余额不足",
)
VAGUE_REQUEST = Meaning(
    r"(?:invalid|bad|malformed|illegal|wrong|gecersiz|hatali|unparsable|unreadable|empty|missing|broken) (?:http "
    r")?(?:request|istek|json|body|govde)\w*",
    r"(?:request|body|json|istek\w*|payload|govde\w*) (?:body |format\w* |bicim\w* |payload |govde\w* "
    r")?(?:<word>)?(?:is |was |must be |should be )?(?:invalid|required|missing|empty|malformed|gecersiz|hatali|not "
    r"(?:valid|parse\w*|be)|a json|an object|json|format error|incorrect|broken|bos|okunamadi)\b",
    r"<cannot> (?:be )?(?:pars|read|decod|underst|process)\w* (?:<word>){0,2}(?:request|body|json|payload)\b",
    r"wrong with (?:your |the )?request|request (?:<word>)?not (?:be )?(?:understood|pars\w*)|content type|invalid "
    r"character|unexpected token|json (?:parse|syntax|decode)|not (?:valid |be parsed as |parse (?:<word>)*?)json|"
    r"valid json",
)
MINUTE = Meaning(r"per (?:minute|second)|minute|dakika|saniye|requests?/(?:min|s)")
ROLLING = Meaning(r"(?:with)?in (?:a )?24 ?h|24 saat|free (?:model|tier|plan)|ucretsiz")
MONTHLY = Meaning(r"month\w*|aylik|bu ay\b|ay(?:in)? (?:~)?(?:basi|sonu|ilk)")
DAILY = Meaning(r"daily|per day|a day|today|tomorrow|24 ?h|gunluk|bugun|yarin|(?<!rate )quotas?\b|kota")
ACCOUNT = Meaning(
    r"(?:project|account|organi[sz]ation|customer|api key|suspended|proje|hesap|hesab|musteri|askiya|anahtar)"
)
