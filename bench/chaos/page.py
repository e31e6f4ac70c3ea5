"""Lays the figures out for a page: a line for each, a column for each seed, and the naive worker beside them."""

from collections.abc import Sequence

from table import Row


def markdown(columns: Sequence[tuple[str, Sequence[Row]]], said: str) -> str:
    """Lay columns of rows out under a sentence; what only one scenario counts has its own table below."""
    storms = [(head, [row for row in rows if not _is_aside(row)]) for head, rows in columns]
    asides = [row for _, rows in columns for row in rows if _is_aside(row)]
    by_scenario = [(name, [row for row in asides if row.scenario == name]) for name in _in_order(asides)]
    tables = [_table([column for column in columns if column[1]]) for columns in (storms, by_scenario)]
    return "\n\n".join([said, *filter(None, tables)])


def _table(columns: Sequence[tuple[str, Sequence[Row]]]) -> str:
    if not columns:
        return ""
    lines = [
        f"| what is counted | bound | {' | '.join(head for head, _ in columns)} |",
        "|---|--:|" + "--:|" * len(columns),
    ]
    for what in dict.fromkeys(row.what for _, rows in columns for row in rows):
        found = [next((row for row in rows if row.what == what), None) for _, rows in columns]
        bounds = {row.bound for row in found if row is not None and row.bound is not None}
        shared = f"{bounds.pop():g}" if len(bounds) == 1 else ""
        lines.append(f"| {what} | {shared} | {' | '.join(_cell(row, shared) for row in found)} |")
    return "\n".join(lines)


def _cell(row: Row | None, shared: str) -> str:
    if row is None:
        return ""
    own = "" if row.bound is None or shared else f" of at most {row.bound:g}"
    return f"{row.figure:g}{own}" + (" OVER" if row.verdict == "OVER" else "")


def _is_aside(row: Row) -> bool:
    return row.scenario.startswith("takeover")


def _in_order(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.scenario for row in rows))
