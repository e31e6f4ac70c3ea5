"""Owns what the words of a failure mean: for each meaning, the ways to say it.

Must not know a stage, a status or a verdict: those are rows of ``jobs.failures``, whose order says which meaning wins.
Ways read what ``jobs.wording`` folds, and name the families of ``jobs.lexicon`` in angle brackets. A gap between two
words stays inside one sentence and is bounded, so that no message costs more than a bounded number of steps a word.

Sources: the shared corpus (seen), KieAI's and model makers' public messages (kie, seen); the Turkish and the Chinese
are assumed.
"""

from jobs.lexicon import Meaning

# ---- inside a generation failure, in the order in which the rows ask ----

PARAMETER_RULE = Meaning(  # says what a parameter has to be: nothing that breaks down says that
    r"(?:must|should|has to|have to|needs? to|ought to) (?:be|lie|stay|fall) (?:one of|either|between|in (?:the "
    r")?range|a multiple of|divisible|at (?:least|most)|no (?:more|less|longer|greater)|less|greater|smaller|larger|"
    r"longer|shorter|equal|up to|[<>\d]|an? (?:valid |positive |non ?empty |public )*(?:integer|number|string|"
    r"boolean|bool|float|array|list|url|uri|png|jpe?g|webp|gif|mp[34]|wav|pdf)\b)",
    r"not (?:with)?in (?:the )?(?:range|list|set|enum) (?:of )?(?:allowed|valid|supported|permitted)",
    r"not one of (?:the )?(?:allowed|valid|supported|permitted|accepted|available|expected)",
    r"(?:missing|lacks) (?:a |the )?(?:required|mandatory) (?:field|param|argument|propert|input|key|value)",
    r"expected one of|(?:less|greater) than or equal to \d|(?:allowed|permitted|accepted|valid|supported) (?:values|"
    r"options|range|ratios|sizes|resolutions|durations|formats)\b(?: <word>)? ?(?:are|is|include)\b",
    r"en (?:fazla|az|cok) \d+ (?:<word>)?(?:karakter|saniye|piksel|gorsel|kelime|dosya|mb)\w*",
)

REFUSAL = Meaning(  # a verdict on content, not just a word of that field
    r"(?:violat\w+|breach\w*|contraven\w+|infring\w+|contrary to|against|breaks?|conflicts? with|goes against|not "
    r"(?:compl\w+|conform\w*|adhere|align\w*|meet|follow)|disallowed by|forbidden by|prohibited by|not allowed (?:by|"
    r"under)|not permitted (?:by|under)) ~(?<!quality )<polic>\b",
    r"(?:content|usage|safety|community|moderation|acceptable use|use) <polic> <is>(?:violat\w+|<refused>|breach\w*)",
    r"(?:blocked|rejected|refused|filtered|declined|denied|stopped|flagged|censored|removed|withheld|suppressed|"
    r"intercepted|caught|disallowed) (?:~ )?(?:by|due to|for|as|because of|because|under|violating|from|in|on|during|"
    r"with|reason) (?:~ )?(?:<review>|polic(?:y|ies)|filters?|unsafe|inappropriate|sexual|violen\w+|review|legal|"
    r"harm\w*|adult|explicit|copyright\w*|abuse)\b",
    r"(?:was|were|been|is|are|got) (?:flagged|moderated|censored)",
    r"<review> <is>(?:triggered|tripped|not passed|did not pass)",
    r"(?:politika|kural|ilke|standart)\w* (?:~)?(?:ihlal|aykiri|engel|redd|uyma|uygun degil)",
    chinese="内容(?:违规|不合规|审核(?:未|不)通过)|(?:未|不|没有?)通过(?:内容)?(?:安全)?审[核查]",
)

TIME_OUT = Meaning(
    r"time(?:d|s)? ?outs?\b|timing out|etimedout|(?:took|taking|takes|lasted|ran|running|runs?) (?:<word>)?(?:longer|"
    r"more|over|\d+ (?:s|sec|min|hour)\w*) ?(?:than )?|too much time|more time than|canceled deadline|time is up|"
    r"ttl\b|overr[au]n\b|(?:sure|zaman) ?asim\w*|cok uzun sur\w*",
    r"time(?:d|s)? ?out|deadline (?:<word>)?(?:exceeded|expired|passed|reached|missed)|missed (?:<word>){0,3}deadline",
    r"(?:took|taking|takes|ran|running|run|waited|waiting|processing|pending|queued|stuck) (?:~ )?(?:too|so) long|"
    r"(?<!url )(?<!link )(?<!file )expired (?:while|before|in (?:the )?queue)|(?:time limit|wait\w*) "
    r"(?:<word>){0,4}(?:reached|exceed\w*|hit|expired|passed)|max\w* (?:<word>){0,2}(?:time|wait|duration of (?:the "
    r")?(?:task|job|request|generation)) (?:<word>){0,2}(?:reached|exceeded|hit)|ran out of time|out of time\b",
    r"(?:exceed\w*|over|beyond|past) (?:the |its |our )?(?:<word>){0,3}(?:time|time limit|run ?time|deadline)\b",
    r"(?:time|run ?time|wait|processing|execution|polling)(?: time)?(?: limit| budget| window)? <is>(?:exceed\w*|"
    r"reached|expired|elapsed|passed|ran out|run out|hit|used up|exhausted|over (?:the )?limit)",
    r"(?:not|never) <is>(?:finish\w*|complet\w*|respond\w*|return\w*|end\w*|answer\w*|deliver\w*|done|ready|reply|"
    r"produce\w*|progress\w*|receive\w*) (?:~ )?(?:(?:with)?in|inside|after|for|by|before) (?:~ )?(?:\d+ ?)?<span>",
    r"no (?:result|response|answer|output|progress|reply|update|heartbeat|callback)s? (?:~ )?(?:(?:with)?in|for|"
    r"after|before|since) (?:~ )?(?:\d+ ?)?<span>",
    r"(?:task|job|request|generation|session|prediction) <is>expired|(?:after|over|(?:finish|execution|waiting|"
    r"processing|run ?time|elapsed|task|job|request|generation) (?:has )?exceeded) \d+ ?(?:s|secs?|seconds?|m|mins?|"
    r"minutes?|hours?)\b(?= ?(?:\||$|without|with no|still|the task|and was))",
    r"(?:killed|aborted|cancell?ed|terminated|stopped|gave up|given up|abandoned|stuck|hung|stalled|still "
    r"(?:<word>)?(?:running|processing|pending|queued|waiting|unfinished)|waited|waiting) (?:~ )?(?:after|for|over|"
    r"more than|past) (?:~ )?(?:\d+|an|one|two) ?(?:s|secs?|seconds?|m|mins?|minutes?|hours?|h)\b",
    r"long time no (?:response|result|answer)|vaktinde|zamaninda",
    r"(?:sure|zaman)\w* (?:~)?(?:doldu|asildi|asti|bitti|tamamlanamadi|gecti|yetmedi)|(?:surede|suresinde|(?:saniye|"
    r"dakika|saat|sure)\w* (?:icinde|boyunca)) (?:~)?(?:tamamlan|yanit|cevap|bit|sonuc)\w*",
    chinese="超时",
)

BREAKDOWN = Meaning(  # something of theirs broke; words of policy or input beside it mean nothing
    r"internal (?:<word>){0,2}(?:errors?|failure|exception|fault|problem|issue)",
    r"(?:server|service|system|backend|worker|engine|node|database|storage|network|infrastructure|hardware|cluster|"
    r"provider|platform|vendor|upstream) (?:side )?(?:internal )?(?:errors?|failure|exception|fault|problem|issue|"
    r"outage|abnormal\w*)",
    r"<theirs>\b (?:<word>){0,4}(?:unavailable|unreachable|offline|down|failing|unresponsive|unhealthy|abnormal|"
    r"exhausted|degraded|upgrading|died|not (?:available|respond\w*|reachable|running|ready|loaded|healthy|answer\w*|"
    r"load|start|connected|reply\w*)|restart\w*)\b",
    r"<theirs> (?:<word>)?<cannot> (?:load|start|respond|answer|boot|initiali|connect|return|reply)\w*|(?:cluster|"
    r"queue|pool|system|server) (?:is )?full|index out of|refused to (?:connect|start|accept)",
    r"(?:temporarily|currently|momentarily) (?:<word>)?(?:unavailable|not available|down|offline|out of service)",
    r"service unavailable|outage|(?:under|for|scheduled) maintenance|(?:being|is) maintained|bakim(?:da|daki|i)?\b",
    r"<cannot> (?:be )?(?:reach|connect|contact|call|start|load|initiali\w+|allocate|acquire|schedule|run|complete|"
    r"query|invoke|perform|launch|spawn)\w*\b (?:(?!(?:urls?|links?|from)\b)<word>){0,5}?(?:<theirs>|gpu|weights|"
    r"memory|upstream|database|check|process|job)\b",
    r"overload\w*|over ?(?:capacity|whelmed)|(?:at|no|full|insufficient|limited|out of|lack of|not enough) "
    r"(?:<word>)?(?:capacity|resources?|workers?|machines?|nodes?)\b",
    r"busy\b|(?:high|heavy|too much|excessive|peak) (?:<word>)?(?:load|traffic|demand|volume)|load (?:is )?too high|"
    r"yogun",
    r"out of (?:gpu |video )?memory|oom\b|oomkilled|cuda|gpus?\b|vram|nccl|tensor\b|ffmpeg|numpy|pytorch",
    r"crash(?:ed|es|ing)?\b|segfault|core dump|traceback|null ?(?:pointer|reference)|unexpected null|none ?type|"
    r"unhandled|panic\w*|exit(?:ed)? (?:with )?(?:<word>)?(?:code|status)|sig(?:kill|term|segv|abrt)|glitch|hiccup|"
    r"malfunction\w*|preempt\w*|evict\w*|unexpected(?:ly)? (?:eof|end|terminat\w+|stop\w*|shut\w*|exit\w*|"
    r"disconnect\w*|clos\w+)|nan\b|(?:data|race) condition|inconsistent state",
    r"(?:exception|stack ?trace|(?:assertion|runtime|key|index|attribute|integrity|operational|memory|os|io|import) "
    r"error)\b|(?:constraint|integrity|segmentation|access|memory|segment) violation|(?:unique|null|key) constraint|"
    r"duplicate key",
    r"(?:server|service|system|api|engine|classifier|checker|backend|kieai|provider|upstream|vendor) "
    r"(?:<word>){0,2}(?:returned|threw|raised|responded with|gave|replied with) (?:an? )?(?:error|5\d\d|exception|"
    r"unexpected|empty|non)",
    r"(?:servers?|services?|backend|api|engine|worker|node|cluster|scheduler) (?:has |have )?fail\w*",
    r"(?:reject|refus|reset|clos|dropp)\w* (?:the )?connection|lost connection|disconnected|(?:undefined reading|"
    r"(?:read|reading|set) propert\w+|is undefined|type error)(?! (?:integer|float|bool|str|list|dict|none|enum|"
    r"number))",
    r"connection (?:<is>|pool )(?:reset|refused|closed|aborted|error|lost|failed|dropped|broken|exhausted)|broken "
    r"pipe",
    r"socket|econn\w+|bad gateway|gateway error|dns\b|ssl\b|tls\b|handshake|http 5\d\d|50[0-4] (?:error|bad|service|"
    r"internal)",
    r"(?:<cannot>|error|problem|failed|issue) (?:while |when |in |during )?(?:be )?(?:upload|sav|stor|deliver|"
    r"persist|writ|transfer|publish|encod|render|post ?process|merg|mux|sync|compos|stitch|transcod)\w*",
    r"(?:upload|storage|delivery|callback|webhook|encoding|rendering|post ?processing|transcoding) (?:of (?:~ "
    r")?)?(?:has )?(?:failed|error)",
    r"content delivery|cdn\b|database|sqlstate|deadlock|disk (?:full|error|quota)|on (?:the )?(?:worker|node|pod)\b|"
    r"(?:tmp|var|mnt|opt)/\w|no space left|bug\b|redis\b",
    r"(?:unexpected|unknown|unspecified|system|fatal|unclassified|undefined) (?:<word>)?(?:errors?|failure|exception|"
    r"problem|issue)",
    r"sunucu|(?:servis|hizmet|sistem|saglayici)\w* (?:~)?(?:hata|kullanilam|yanit verm|cevap verm|ulasilam|erisilem|"
    r"cok|sorun|ariza|kuyru|mesgul)|ariza|veritaban\w*",
    r"(?:dahili|ic|sistem|beklenmeyen|beklenmedik|bilinmeyen|teknik) (?:bir )?(?:hata|sorun|ariza|problem)",
    chinese="繁忙|系统(?:错误|异常)|服务器|内部错误|服务(?:异常|不可用|暂不可用)|维护",
)

PROVIDER_ACCOUNT = Meaning(  # trap 8: the gateway's own account with its provider, not ours
    r"(?:credits?|balance|funds?|quota|points|tokens)\b (?:<word>){0,4}(?:insufficient|not (?:be )?(?:enough|"
    r"sufficient)|exceeded|exhausted|low|depleted|ran out|run out|used up|overdue|required|remaining|empty|negative)",
    r"(?:insufficient|not enough|not sufficient|no|low|out of|lack of|more|zero) (?:<word>){0,2}(?:credits?|balance|"
    r"funds?|quota|tokens?|points)\b",
    r"(?:exceed\w*|reached|hit|over|used up|used all) (?:<word>){0,4}(?:quota|rate limit|request limit|usage limit|"
    r"concurrency|spending|resource pack|plan)",
    r"top ?up\b|billing|payment required|subscription|recharge|overdue|arrears|invoice|unusual activity|free tier",
    r"(?:api|access|secret|auth\w*) ?(?:keys?|tokens?)\b|credentials?\b|unauthenticated|authentication|access "
    r"permissions?|accessdenied|access denied",
    r"unauthori[sz]ed(?! (?:use|content|copy|repro|likeness|depict))|permission denied|(?:your|the|provider|this|"
    r"our) account (?:is|was|has|does|need|balance|reached)|account (?:<word>)?(?:suspended|disabled|deactivated)",
    r"rate ?limit\w*|request rate|too many (?:<word>){0,2}(?:requests?|tasks?|jobs?|users?|calls?|connections?)",
    r"(?:call|request) frequency|requests? per (?:second|minute)|throttl\w+|concurren\w+|parallel (?:task|job|"
    r"request|generation|call)s?|too (?:frequent|fast|quickly)|slow down",
    r"bakiye|kredi\w* (?:~)?(?:yetersiz|yok|bitti|doldu|kalma)|yetersiz (?:kredi|kota)|kota\w* (?:~)?(?:asil|doldu|"
    r"bitti)",
    r"(?:cok fazla|sik) istek|istek (?:limit|sinir)\w*|api anahtar\w*|yetkisiz erisim|gunluk limit|aylik limit",
    chinese="余额|欠费|频率|限流|配额|并发",
)

PLUMBING = Meaning(  # weaker than a breakdown: outweighs a word of policy or input, not a verdict on content
    r"upstream|backend|infrastructure|microservice|(?:inference|render|worker) (?:node|process|pod)|pipeline",
    r"(?:invalid|unexpected|empty|malformed|bad|no|missing|unparsable|unparseable|incomplete|corrupt\w*|broken|"
    r"garbled|gecersiz|bos) (?:<word>){0,2}(?:response|reply|answer|output|result|yanit|cevap|sonuc)s?\b",
    r"(?:response|reply|output|result|yanit|cevap)s? (?:~ )?(?:invalid|malformed|empty|missing|unexpected|gecersiz|"
    r"bos|corrupt\w*)\b",
    r"(?:text|image|video|audio|prompt) (?:encoder|decoder|sampler|rewriter|enhancer|generator)\b|response "
    r"validation|queue\b|kuyru\w+|(?:returned|received|got|produced|yielded) (?:an? )?(?:invalid|empty|malformed|"
    r"unexpected|no|incomplete|corrupt\w*|garbage)",
    r"(?:retries|attempts|retry limit)\b|(?:weights|checkpoint|tokenizer|checksum)\b",
    r"models? (?:<word>){0,2}(?:is |was )?(?:not (?:found|supported|active|enabled)|unsupported|disabled|offline)",
    r"(?:worker|runner|process|container|prediction|instance) (?:<word>)?(?:lost|killed|terminated|died|interrupted|"
    r"vanished|rejected)",
)

POLICY = Meaning(
    # what is shown
    r"nsfw|not safe for work|sexual\w*|nud(?:e|es|ity)\b|naked|porn\w*|erotic\w*|(?:sexually )?explicit\b|gore\b|"
    r"gory|graphic content|violen(?:t|ce)\b|bloody|hate(?:ful)?\b|harass\w*|bully\w*|self ?harm|suicid\w*|"
    r"terroris\w*|extremis\w*|racis\w+|drugs?\b|weapons?\b|adult\b(?! (?:voice|male|female|man|woman))|suggestive|"
    r"csam|child (?:safety|abuse|sexual|exploit\w*)|minors\b|underage|children\b|danger(?:ous)?\b|discriminat\w+|"
    r"(?:of|involv\w+|depict\w*|contain\w*|show\w*|includ\w+|appear\w*|error|sexuali\w+) (?:an? )?minor\b(?! "
    r"(?:error|issue|problem|bug|fault))",
    r"(?:real|actual|living|identifiable|recogni[sz]able|famous|prominent|private|well known|specific|known|notable) "
    r"(?:<word>)?(?:person|persons|people|humans?|individuals?|faces?|figures?|artists?|singers?)\b",
    r"celebrit\w+|public (?:figure|person)\w*|likeness\w*|deep ?fake\w*|impersonat\w+|politic\w*",
    r"artist'?s? names?\b|names? of (?:an? |the |any )?(?:<word>)?(?:artist|singer|band|musician|person|brand)s?\b|"
    r"consent\b|personal (?:data|information)|privacy (?:<word>)?(?:violat|concern|polic|information)\w*",
    r"copyright\w*|trademark\w*|intellectual property|infring\w+|plagiari\w+|existing (?:work|song|music|track|"
    r"recording)s?|(?<!not )match(?:es|ed)? (?:<word>){0,3}(?:existing|song|recording|copyright\w*|released|"
    r"commercial)|derivative works?|rights ?holders?|(?:third party|similar to|similarity to) (?:<word>){0,2}(?:work|"
    r"character|material|content|lyric|music|brand|right|existing|protected|ip\b)\w*|(?:protected|licensed) (?:work|"
    r"character|material|content|lyric|music|brand)\w*|public domain|error ip\b",
    r"sensitive\b(?! (?:to|about)\b)|unsafe|inappropriate|offensive|obscene|indecent|objectionable|vulgar|profan\w+|"
    r"disturbing|harmful|hazardous|toxic\w*|abus(?:e|ive)\b|unsuitable|illicit|age restricted",
    r"(?:prohibited|forbidden|disallowed|restricted|banned|illegal|blocked|block|blacklisted|not allowed|"
    r"unacceptable|filtered|impermissible|non ?compliant|problematic|improper) (?!for )(?:<word>)?(?:contents?|"
    r"words?|uses?|materials?|subjects?|topics?|terms?|prompts?|images?|keywords?|phrases?|categor\w+|information|"
    r"elements?|themes?|usage)|resembl\w+ (?:an? |the )?(?:<word>){0,2}(?:brand|character|artist|person|work|song|"
    r"figure)s?|what we (?:allow|permit|accept)|under (?:18|the age)|not safe\b|persons? names?\b|person's names?\b|"
    r"(?:text|image|video|audio|content|input|output) risk\b|spii\b|green ?net\b|trust (?:and )?safety|block reason|"
    r"(?:check|review|audit) <is>not pass\w*|without (?:<word>){0,2}(?:permission|authori[sz]ation)|(?:content|"
    r"output|input|prompt|text|image) (?:<word>)?moderation(?= ?(?:\||$))",
    # who says so
    r"(?:output|input|image|prompt|video|reason|text|audio) safety\b|safety (?:output|input|text|image|video|audio|"
    r"prompt)\b|recitation|fail\w* (?:<word>){0,2}moderation|illegal (?:activit|acts?\b)",
    r"(?:fail\w*|not|never|without) (?:to )?(?:pass\w*|clear\w*|satisf\w+|survive\w*|approved?(?: by)?|(?:get|got|"
    r"make it) past) (?:<word>){0,3}(?:<review>|review|inspection|audit|screening|verification)\b",
    r"fail\w* (?:the |by |in |at |our |your |of )*(?:<word>)?<review>",
    r"<review> (?:<word>){0,2}?<is>(?:<refused>|fail\w*|not (?:pass\w*|approv\w*|clear\w*|allow\w*)|did not|"
    r"trigger\w*|hit|violat\w*|trip\w*|guard\w*|block\w*|reject\w*|restrict\w*|polic\w*|concerns?|reasons?|measures?|"
    r"ratings?|rules?|thresholds?|attributes?|standards?|guidelines?|words?)\b|sensitive words? error",
    r"(?:trigger\w*|tripped|hit|caught (?:by|in)|activated|set off|matched) (?:<word>){0,3}(?:<review>|block ?list|"
    r"blocked|filters?|polic(?:y|ies)|sensitive|deny ?list|black ?list)",
    r"safety (?:system|filter|polic|guideline|setting|reason|guardrail|violation|block|concern|restriction|measure|"
    r"rating|issue|error|rule|standard|threshold|attribute)\w*",
    # what is said of content; of an image or a request only in plain words, since a queue rejects those too
    r"<content> <is>(?:(?!(?:types?|formats?|sizes?|ratios?|servers?|hosts?)\b)<word>){0,3}?(?:<refused>|not "
    r"(?:allowed|permitted|acceptable|compliant|appropriate|approved|suitable)|unacceptable)\b(?!<theirs by>)",
    r"(?!(?:urls?|links?) )(?:<media>|requests?|outputs?|results?|generations?|creations?) <is>(?:(?!(?:types?|"
    r"formats?|sizes?|ratios?|servers?|hosts?)\b)<word>)?(?:blocked|rejected|refused|declined|filtered|flagged|"
    r"moderated|censored|withheld|prohibited|forbidden|banned|not (?:allowed|permitted|acceptable|compliant|"
    r"appropriate|approved|suitable))\b(?!<theirs by>)",
    r"(?:<refused>|refuse|reject) (?:to )?(?:the |your |this |our |that )*(?:<word>)?(?:content|prompt|request|image|"
    r"picture|photo|lyrics|text|description|reference|generate|create|render|produce)s?\b",
    r"(?:prohibited|content|contents) (?:polic(?:y|ies)|filter\w*|restrict\w*|violat\w*|guidelines?|standards?|"
    r"blocked)",
    r"(?:usage|use|content|community|safety|our|platform|acceptable use|service) (?:polic(?:y|ies)|guidelines)\b",
    r"polic(?:y|ies) (?:violat|breach|block|refus|reject|restrict|concern|issue)\w*|violat\w+|guardrail\w*|"
    r"responsible ai|rai (?:media|filtered)|filtered out|terms of (?:service|use)|filter failed|moderation "
    r"(?:<word>)?(?:block|fail|reject|flag)\w*",
    r"(?:model|provider|system|we|i|platform) (?:<word>){0,2}(?:refuse[sd]?|declined?|will not|do not|does not) "
    r"(?:to )?(?:<word>)?(?:generate|create|produce|render|fulfil\w*|answer|allow|permit|depict|process (?:images|"
    r"content))(?! (?:more|any more|another|new|right now))",
    r"refus(?:ed|es|ing) to (?:draw|make|show|answer|process|depict|paint|sing|speak|synthesi\w+)|i can not "
    r"(?:create|generate|make|produce|draw|do)(?!~(?:moment|now|currently|later))|(?:can not|unable to|not able to) "
    r"(?:<word>)?(?:help|assist|comply|depict|portray|fulfil\w*|(?:generate|create|make|produce|show|edit) "
    r"(?:<word>){0,3}(?:of|with|depicting|containing|showing) (?:<word>){0,2}(?:person|people|individual|figure|"
    r"character|brand)s?)\b|filters? (?:has |have )?<refused>|(?:block|deny|black|ban) ?list\w*",
    # in Turkish
    r"uygunsuz|sakincali|mustehcen|hassas (?:~)?(?:icerik|kelime|ifade)|yasak\w* (?:~)?(?:icerik|kelime|ifade)|telif|"
    r"cinsel|ciplak\w*|siddet|kufur|nefret|ihlal|moderasyon|guvenlik (?:filtre|neden|gerekce|sebe|sistemi|politika|"
    r"kural|denetim|kontrol)\w*|(?:gercek|unlu|tanin\w+) (?:bir )?(?:kisi|sahis|insan|yuz)\w*|topluluk (?:kural|ilke|"
    r"standart)\w*|muzir|zararli",
    r"(?:istem|prompt|gorsel|icerik|istek|talep|metin|talebiniz|isteginiz)\w* (?:<word>){0,3}(?:engellen|redded|"
    r"sansur|filtrelen)\w*",
    r"kisisel (?:veri|bilgi)|iceri[kg]\w* (?:<word>)?(?:denetim|inceleme|filtre|moderasyon|redd|engel|yasak|guvenli|"
    r"uygun|kural|politika)\w*",
    chinese="违规|敏感|违禁|色情|暴力|侵权|版权|审核|不合规|风控|肖像",
)

DELIVERY = Meaning(  # their product got lost, not our input
    r"(?:generated|resulting|final|finished|produced|rendered|intermediate|temporary|temp|result) "
    r"(?:<word>)?(?:image|video|audio|file|media|url|asset|track|clip)",
    r"(?:output|result)s? (?:<is>)too|output (?:file|url)s?\b|(?:the |task )?results?\b (?:url|file|was|could|is|"
    r"were)",
)

INPUT = Meaning(
    r"(?:needs?|requires?) (?:\d+|two|three|four|both) <word>|no (?:lyrics|prompt|text|image|images|audio|video|file|"
    r"voice)(?= ?(?:\||$))",
    r"<bad> (?:or (?:<word>){1,3})?(?:<word>){0,3}?(?:<param>|requests?)\b",
    r"(?:gecersiz|hatali|yanlis|bozuk|eksik|zorunlu|gerekli|desteklenmeyen|bos) (?:<word>){0,2}?(?:<girdi>|bilgi|"
    r"model)\b|<girdi> (?:~)?(?:eksik|zorunlu|gerekli|bos|hatali|gecersiz|belirtilm\w+|bozuk|yanlis|cok)\b",
    r"<param> (?:<word>)?(?:required|mandatory|needed|missing)\b|<param> (?:<word>){0,4}?(?:(?:is |are |was |were |"
    r"has |have |been )*(?:too )?(?:<bad>|missing|empty|blank|null|required|mandatory|expired|private|protected|"
    r"exceed\w*|over limit|out of|long|short|large|small|absent|conflict\w*|(?:over|above|below|under) \d+|[<>]=? "
    r"?\d+\w*|deleted|dead|gone|differ\w*)|not (?:be |been |a |an |in |any )?(?:found|valid|supported|support|"
    r"accepted|accept|allowed|handled|belong|recogni[sz]ed|known|readable|accessible|reachable|given|present|"
    r"provided|specified|supplied|set|exist\w*|match\w*|contain\w*|meet|correspond|permitted|decodable|public\w*|"
    r"used|understood|pars\w+|decod\w+|convert\w+|read|opened|open|fetch\w*|download\w*|load\w*|access\w*|retriev\w*|"
    r"reach\w*|resolv\w*|identif\w*|detect\w*|image|video|audio|string|number|integer|boolean|bool|list|array|object|"
    r"option|choice))\b|<param> (?:maximum|minimum|max|min|at most|at least|up to) \d",
    r"(?:resolution|duration|ratio|voice|language|format|quality|size|style|mode|preset|persona|speaker)s? "
    r"(?:<word>){0,3}?(?:not available|unavailable)\b",
    r"not an? (?:<word>){0,2}(?:image|video|audio|string|number|integer|boolean|list|array|object|url|uri|format|"
    r"file|png|jpe?g|webp|mp[34]|wav)\b|not (?:an? )?valid\b|(?:is|are|was|were) invalid\b",
    r"did you mean|names? are specific|mutually exclusive|(?:after|beyond|past) the end of|need\w* (?:an? "
    r")?(?:longer|shorter|larger|smaller|clearer|higher|bigger|better) (?:<word>){0,2}?<param>|(?:zero|0) "
    r"(?:characters|bytes|length|images|size)|(?:not enough|insufficient|too little) (?:<word>)?(?:images?|speech|"
    r"audio|text|frames?|references?|samples?|pixels?|words?)|not both|(?:both|together) (?:<word>){0,4}(?:not "
    r"allowed|at the same time)|(?:incompatible|conflict\w*) with|not compatible",
    r"unexpected (?:values?|types?|fields?|keyword|param\w*|argument|property|characters?)\b|not allowed\b|expected "
    r"(?:at (?:most|least) |exactly |up to )?\d+ |expected (?:<word>){1,5}(?:but |and )?(?:got|received|found|"
    r"given)\b",
    r"(?:maximum|minimum|at most|at least|no more than|up to|max|min|limited to|limit (?:is|of)) (?:of |is )?(?:\d+|"
    r"one|two|three|four|five) ?(?:<word>)?(?:images?|files?|items?|references?|characters?|chars?|words?|seconds?|"
    r"secs?|s|inputs?|frames?|tags?|urls?|mb|kb|px|pixels?|mp|tokens?|pictures?|photos?|minutes?)\b",
    r"unsupported|not (?:currently |yet |be )?(?:supported|support|accepted|recogni[sz]ed)\b",
    r"only (?:~ )?(?:given|provided|supported|allowed|accepted|available|permitted|supports?|accepts?|valid|work\w*|"
    r"can)\b|(?:supports?|accepts?|allows?|takes?) only\b|only (?:supports?|accepts?|allows?|takes?)\b",
    r"(?:must|should|has to|have to|needs? to) (?:not )?(?:be|have|contain|match|include|provide|start|end|exceed|"
    r"use|specify)\b|you (?:must|should|need to) (?:provide|specify|supply|upload|pass|set|give)",
    r"(?:can not|may not|must not) be (?:empty|null|blank|negative|zero|used (?:with|together)|greater|less|more|"
    r"longer|larger|smaller|both|combined|omitted|parsed|decoded|read|opened|over|under|above|below)\b",
    r"(?:exceed\w*|over|above|beyond|greater than|larger than|longer than|more than|out of|outside|below|under|less "
    r"than|smaller than|shorter than|bigger than|higher than|lower than) (?:the |of |our |its "
    r")*(?:<word>){0,3}(?:max\w*|min\w*|limit\w*|lengths?|size|range|allowed|permitted|durations?|characters?|"
    r"pixels?|px|mb|kb|seconds?|bounds|dimensions?|tokens?|words?)\b",
    r"maximum (?:<word>){0,4}exceeded|(?:max|min)\w* (?:<word>){1,3}is \d|(?:short|long) side",
    r"too (?:long|short|large|small|big|wide|tall|narrow|blurry|heavy|noisy|dark|quiet|loud|extreme|low res\w*)\b|"
    r"too few\b|too many (?:<word>)?(?:images?|characters?|words?|tokens?|files?|references?|inputs?|param\w*|tags?|"
    r"frames?|pictures?|items)|(?:rate|resolution|duration|values?|quality|fps|bitrate|volume|scale|strength) "
    r"(?:<word>){0,2}too (?:high|low)",
    r"missing (?:<word>){0,4}?(?:<param>|title)|(?:is|are) missing\b",
    r"requires? (?:an? |at least |the |exactly )+(?:<word>){0,3}<param>|(?:is|are) (?:required|mandatory)\b(?! to "
    r"(?:re|try))",
    r"(?:required|mandatory) (?:field|param|argument|propert|input|key|value)\w*|not (?:provided|specified|"
    r"supplied)\b",
    r"no (?:valid |usable |input |reference |human |clear )*(?:images?|prompts?|inputs?|files?|audio|faces?|person|"
    r"speech|voices?|human|video|text|lyrics|vocals|subject|body|people) (?:<is>|could be |can be |was )?(?:provided|"
    r"found|detected|given|supplied|uploaded|specified|in|present|attached)\b",
    r"(?:contains?|contained|has|have|with|had|detected|found|finds?) no (?:<word>)?(?:images?|audio|faces?|person|"
    r"speech|voices?|human|video|text|lyrics|vocals|sound|people|body|subject|alpha)\b|nothing to (?:transcribe|edit|"
    r"extend|separate|speak)|silent\b|(?:<cannot>|not) (?:detect|find|recogni[sz]e|identify|determine) "
    r"(?:<word>){0,2}(?:face|human|person|speech|body|voice|people|subject|language)\w*|(?:faces?|persons?|humans?|"
    r"subjects?|speech|body) <is>not (?:be )?(?:detect|found|recogni)\w*",
    r"please (?:provide|upload (?:a|an|another)|specify|enter|shorten|reduce|resize|crop|use an?|choose|select|"
    r"supply|check (?:the |your )?(?:<word>)?<param>|compress|trim|convert)\b",
    r"(?:input|uploaded|provided|supplied|given|reference|your) <media> (?:<word>){0,3}?<cannot> be process\w*",
    r"<media> (?:~ )?(?:(?:<cannot>|not) (?:be |been )?(?:download|fetch|access|retriev|read(?!y)|open|load|reach|"
    r"decod|pars|found|resolv|exist|public|identif)\w*|(?:inaccessible|expired|unreachable|corrupt\w*|broken|damaged|"
    r"unreadable|private|(?:returned?|responded|gave|answered|replied)(?: with)? (?:http |status |an? |code )*4\d\d|"
    r"(?:download|fetch|decod|pars|load)\w* (?:fail|error)\w*)\b)",
    r"(?:<cannot>|error|problem|failed|failure|trouble) (?:while |when |in )?(?:be )?(?:download|fetch|access|"
    r"retriev|read|open|load|reach|decod|pars|get|identify|import|resolv|convert|interpret)\w* (?:~ )?(?:<media>|"
    r"prompt|json|body|payload|base64|lyrics|boolean|integer|number)\b",
    r"(?:download|fetch|decod|pars|load)\w* (?:of )?(?:~ )?<media> (?:<word>)?(?:fail|error)\w*|base64 (?:decod|"
    r"pars)\w* (?:fail|error)\w*",
    r"4\d\d (?:<word>){0,2}(?:when|while) (?:download|fetch|access|read)\w*|(?:min|max)\w* (?:length|size|duration|"
    r"characters|count) (?:<word>)?\d|out of range|range of (?:allowed|valid)|(?:allowed|valid|supported|accepted|"
    r"permitted|available) (?:<word>)?(?:values?|options?|ranges?|formats?|types?|ratios?|sizes?|resolutions?|"
    r"durations?)\b|between \d\S* (?:<word>)?and \d|expected (?:<word>){1,4}to be|(?:given|provided|supplied|set|"
    r"used|specified|sent) without|please add|expected one of",
    r"(?:validation|schema|param\w*|input|argument|type|value) (?:<word>)?(?:errors?|failed|failure|mismatch)\b",
    r"fail\w* (?:<word>){0,2}validat\w+|bad request|(?:unexpected|extra|unrecogni[sz]ed|additional) (?:keyword|field|"
    r"param|argument|property)|(?:voice|style|template|speaker|preset)\w* (?:<word>){0,3}(?:not found|not exist)",
    # in Turkish
    r"gecerli (?:bir )?(?:<word>)?degil|bos (?:olamaz|birakilamaz|olmamali)|zorunlu(?:dur)?\b|olmali(?:dir)?\b|"
    r"gerekli(?:dir)?\b|olamaz\b|parametre hata\w*|desteklenm\w+|gonderilmeli\w*|girilmeli\w*|girin(?:iz)?\b|en "
    r"(?:fazla|az|cok) \d+",
    r"cok (?:uzun|kisa|buyuk|kucuk)\b|(?:sinir|limit|uzunlu|boyut|karakter|azami|maksimum)\w* (?:~)?(?:asil|asiyor|"
    r"asti|asamaz|gec|uzerinde)",
    r"<girdi> (?:~)?(?:(?:indiril|erisil|acil|okun|bulun|yuklen|cozul|tanin|ulasil|alin)[ae]?m|kabul edilm)\w*",
    chinese="超过|超出|最多|至少|参数|格式|不支持|过大|过长|过小|不能为空|必填|无效|分辨率",
)

FAILED = Meaning(
    r"(?:generat|creat|render|process|task|job|video|image|music|audio|produc|synthesi)\w* (?:<word>){0,3}(?:fail\w*|"
    r"error|aborted|unsuccessful)",
    r"(?:fail\w*|unable|could not|can not|error) (?:<word>){0,2}(?:generat|creat|render|process|complet|produc|"
    r"synthesi)\w*",
    r"something went wrong|try(?:ing)? again|retry|(?:olustur|uret|tamamla|isle)\w* ?(?:~)?(?:madi|medi|basarisiz|"
    r"hata)|basarisiz",
    chinese="失败|重试",
)
