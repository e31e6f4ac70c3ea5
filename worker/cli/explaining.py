"""Owns the command that gives the verdict on a failure."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.entry import AsJson, app
from worker.exits import WrongUsage


@app.command()
def explain(
    stage: Annotated[str | None, typer.Option(help="submit, poll or result")] = None,
    status: Annotated[int | None, typer.Option(help="HTTP status")] = None,
    code: Annotated[str | None, typer.Option(help="The gateway's or provider's code")] = None,
    message: Annotated[str | None, typer.Option(help="Its words")] = None,
    transport: Annotated[
        str | None, typer.Option(help="How it broke off without a whole answer: refused, dns, read_timeout, reset, ...")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="JSON lines with stage, status, code, message, transport; rows with 'expect' are compared."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Give the verdict on a failure, and the rule that gave it."""
    from worker.explain import explain_file, explain_one

    if (file is None) == (stage is None):
        raise WrongUsage("explain: give --stage (with --status, --code, --message, --transport) or --file")
    if file is not None:
        return explain_file(file, as_json=as_json)
    assert stage is not None
    return explain_one(stage, status, code, message, transport, as_json=as_json)
