"""The rows that several measurements have: what must not be, and how late webhooks came."""

from books import Books, quantile
from table import Row


def ends(name: str, *parts: tuple[Books, int]) -> list[Row]:
    """Count what must not be: webhooks that never came, of so many wanted, came twice, or came unsigned."""
    return [
        Row(name, "never delivered", sum(wanted - len(books.taken) for books, wanted in parts), 0),
        Row(name, "taken twice, or under two ids", sum(books.doubled for books, _ in parts), 0),
        Row(name, "not signed as they must be", sum(books.forged for books, _ in parts), 0),
    ]


def lateness(name: str, books: Books, most_ms: float | None) -> list[Row]:
    """Tell how long after its event a webhook came; `most_ms` is what nearly all have to keep to."""
    delays = books.delays_ms or [0]
    return [
        Row(name, "its delay, p50, ms", quantile(delays, 0.5)),
        Row(name, "its delay, p99, ms", quantile(delays, 0.99), most_ms),
        Row(name, "its delay, at the most, ms", max(delays)),
    ]
