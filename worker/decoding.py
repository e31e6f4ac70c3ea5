"""Owns the undoing of a body's Content-Encoding: one layer, and never more of it than there is room for.

A body of a few hundred bytes can unpack to gigabytes, and each further layer takes that to its power. So more than one
coding is refused, and every step is told how much it may yield. A coding not known here is left on: where it is a
charset by mistake, the answer can be read, and where it is not, its reader will say so.
"""

import zlib

_RAW_DEFLATE = -zlib.MAX_WBITS  # what some servers mean by deflate
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class Undecodable(Exception):  # noqa: N818 - named after what it says
    """The body is not what its Content-Encoding says, or has more than one."""


class Decoder:
    """Undoes gzip or deflate where a Content-Encoding names it, else nothing. Raises ``Undecodable``."""

    def __init__(self, content_encoding: str) -> None:
        codings = [coding for part in content_encoding.lower().split(",") if (coding := part.strip())]
        codings = [coding for coding in codings if coding != "identity"]
        if len(codings) > 1:
            raise Undecodable(f"more than one coding: {content_encoding[:50]!r}")
        self._coding = codings[0] if codings else "identity"
        self._unpack = zlib.decompressobj(_WINDOWS[self._coding]) if self._coding in _WINDOWS else None
        self._begun = False

    def decode(self, piece: bytes, limit_bytes: int) -> bytes:
        """Give what a piece says, at most ``limit_bytes`` (above 0) of it; the rest is then lost."""
        if self._unpack is None:
            return piece[:limit_bytes]
        begun, self._begun = self._begun, True
        try:
            return self._unpack.decompress(piece, limit_bytes)
        except zlib.error as error:
            if begun or self._coding != "deflate":
                raise Undecodable(str(error)) from error
        self._unpack = zlib.decompressobj(_RAW_DEFLATE)
        return self.decode(piece, limit_bytes)
