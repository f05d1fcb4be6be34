"""Files over HTTP: ETag, If-None-Match, Range (RFC 9110), from any storage that can seek."""

import re
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.errors import problem

_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_BLOCK = 1 << 18

_CONTENT: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_ETAG = {"ETag": {"description": "The file's sha256, quoted.", "schema": {"type": "string"}}}
_CONTENT_RANGE = {"description": "Position of the returned bytes in the file.", "schema": {"type": "string"}}

FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "content": _CONTENT, "headers": _ETAG},
    206: {
        "description": "The requested range of bytes.",
        "content": _CONTENT,
        "headers": {**_ETAG, "Content-Range": _CONTENT_RANGE},
    },
    304: {"description": "If-None-Match names the file's ETag.", "headers": _ETAG},
    416: {
        "description": "The range begins after the end of the file.",
        "headers": {"Content-Range": _CONTENT_RANGE},
    },
}

RANGE_HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
    for name, text in {
        "Range": "One range of bytes: bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT.",
        "If-Range": "An ETag. Range is ignored if it is not the file's ETag.",
        "If-None-Match": "ETags. The answer is 304 if one of them is the file's ETag.",
    }.items()
]


def serve(request: Request, source: IO[bytes], *, size: int, sha256: str, name: str) -> Response:
    """The file, the part that was asked for, or 304. ``source`` is closed in every case.

    Several ranges at once are answered with the whole file, as the RFC allows.
    """
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": _attachment(name),
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        source.close()
        return Response(status_code=304, headers=headers)
    start, end, status = 0, size, 200
    asked = _ONE_RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if asked and any(asked.groups()) and request.headers.get("if-range", etag) == etag:
        start, end = _bounds(*asked.groups(), size=size)
        if start >= size or start >= end:
            source.close()
            message = f"The range begins after the end of the file, which has {size} bytes."
            bounds = {"Content-Range": f"bytes */{size}"}
            return problem(416, "The range cannot be served", message, "bad_range", headers=bounds)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(
        _blocks(source, start, end),
        status_code=status,
        headers=headers,
        media_type="application/octet-stream",
    )


def _attachment(name: str) -> str:
    """The file's name as a header (RFC 6266): ASCII for old clients, and the whole name where it is more."""
    plain = re.sub(r"[^A-Za-z0-9_. -]", "_", name)
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{exact}'


def _bounds(first: str, last: str, *, size: int) -> tuple[int, int]:
    """From (inclusive) and to (exclusive)."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _blocks(source: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    with source:
        source.seek(start)
        left = end - start
        while left > 0 and (block := source.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
