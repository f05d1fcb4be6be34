"""Files over HTTP: ETag, If-None-Match, Range (RFC 9110), from any storage that can seek."""

import re
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

_ONE_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$")
_PLAIN = re.compile(r"[\w .+@=,-]+", re.ASCII)
_BLOCK = 1 << 18


def serve(request: Request, source: IO[bytes], *, size: int, sha256: str, name: str) -> Response:
    """The file, the part that was asked for, or 304. ``source`` is closed in every case.

    Several ranges at once are answered with the whole file, as the RFC allows.
    """
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        # RFC 6266: headers are Latin-1, names are not.
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        if not _PLAIN.fullmatch(name)
        else f'attachment; filename="{name}"',
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        source.close()
        return Response(status_code=304, headers=headers)
    start, end, status = 0, size, 200
    asked = _ONE_RANGE.match(request.headers.get("range", "").replace(" ", ""))
    if asked and any(asked.groups()) and request.headers.get("if-range", etag) == etag:
        start, end = _bounds(*asked.groups(), size=size)
        if start >= size or start >= end:
            source.close()
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(
        _blocks(source, start, end),
        status_code=status,
        headers=headers,
        media_type="application/octet-stream",
    )


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
