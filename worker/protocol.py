"""Owns how the bytes of an answer come to its reader, under `worker/transport.py`."""

import aiohttp
from aiohttp.client_proto import ResponseHandler

_HEAD_END = b"\r\n\r\n"


class Protocol(ResponseHandler):
    """Has the head of an answer count whatever follows it, and whoever reads the body told at once that it is wrong.

    Left to itself aiohttp forgets a head that came in one piece with a wrong body (in 3.14, as `ResponseHandler` hands
    over what its parser has read only when all of the piece was right), and has the body's reader wait for its timeout.
    """

    def data_received(self, data: bytes) -> None:
        """Parse a piece; a head and what follows it one after the other."""
        in_body = self._payload is not None and not self._payload.is_eof()
        head, end, rest = (data, b"", b"") if in_body else data.partition(_HEAD_END)
        super().data_received(head + end)
        if rest and self.exception() is None:
            super().data_received(rest)
        wrong, body = self.exception(), self._payload
        if wrong is not None and body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError(str(wrong)))
