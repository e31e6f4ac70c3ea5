"""The vendor's table of errors: code, HTTP status, message. Source: the public page "Error Codes".

Statuses and code names are the vendor's where published; names marked (ours) and the Turkish wording are assumed, save
the one message the page prints.
"""
# ruff: noqa: RUF001 - Turkish has a dotless i

ERRORS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "Geçersiz istek biçimi veya eksik parametre."),  # (ours)
    "invalid_api_key": (
        401,
        "API anahtarınız geçersiz veya devre dışı bırakılmış. Panelden yeni bir anahtar oluşturun.",
    ),
    "insufficient_balance": (402, "Yetersiz bakiye. Lütfen bakiye yükleyin."),
    "model_blocked": (403, "Bu model proje/müşteri için engellenmiş. Erişim için yöneticinizle iletişime geçin."),
    "model_not_found": (404, "Belirtilen model bulunamadı. Model kimliğinin doğru olduğundan emin olun."),
    "endpoint_not_found": (404, "Uç nokta bulunamadı."),  # (ours)
    "task_not_found": (404, "Görev bulunamadı."),  # (ours)
    "payload_too_large": (413, "İstek boyutu çok büyük (en fazla 10 MB). Görseli küçültün veya URL gönderin."),
    "model_not_supported": (422, "Bu model desteklenmiyor."),  # (ours)
    "rate_limit_exceeded": (429, "Dakikalık istek sınırını aştınız. Biraz bekleyip tekrar deneyin."),
    "daily_token_limit_exceeded": (429, "Bu model için tanımlanan günlük token sınırına ulaştınız."),
    "daily_request_limit_exceeded": (429, "Bu model için tanımlanan günlük istek sayısı sınırına ulaştınız."),
    "monthly_token_limit_exceeded": (429, "Bu model için tanımlanan aylık token sınırına ulaştınız."),
    "free_model_rate_limit": (429, "Ücretsiz model sınırını aştınız. 24 saatte en fazla 5 istek gönderilebilir."),
    "internal_error": (500, "Sunucu hatası. Lütfen daha sonra tekrar deneyin."),  # (ours)
}

QUOTA_CODES = (
    "daily_token_limit_exceeded",
    "daily_request_limit_exceeded",
    "monthly_token_limit_exceeded",
    "free_model_rate_limit",
)
"""The 429s that are about one model's quota, not about the pace of requests."""


def message_of(code: str) -> str:
    """Give the message that goes with a code of the table."""
    return ERRORS[code][1]
