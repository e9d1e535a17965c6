"""The browser half's files, as built into `static/`: `/plainsocket.js` and what it pulls."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".map": "application/json",
    ".swf": "application/x-shockwave-flash",
}
_HEADERS: Final = [
    # Any page may have them, isolated ones too: there is nothing in them but the library.
    ("Access-Control-Allow-Origin", "*"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
    ("X-Content-Type-Options", "nosniff"),
]
_NAMES: Final = ("plainsocket", "bridge.swf")
_PATHS: Final = tuple(f"/{name}" for name in _NAMES)
_FOREVER: Final = "public, max-age=31536000, immutable"


class File(NamedTuple):
    content: bytes
    content_type: str
    tag: str
    """Of its content: another one for another version."""


@functools.cache
def files() -> dict[str, File]:
    """The files by name."""
    from importlib import resources  # not needed by who serves none of them

    found = {}
    for entry in resources.files("plainsocket").joinpath("static").iterdir():
        content_type = _TYPES.get(PurePosixPath(entry.name).suffix)
        if entry.name.startswith(_NAMES) and content_type is not None:
            content = entry.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:16]
            found[entry.name] = File(content, content_type, tag)
    return found


def is_asked_for(environ: dict[str, Any]) -> bool:
    """Whether a request is for one of the files, at the root of the server."""
    path: str = environ.get("PATH_INFO", "")
    return (
        path.startswith(_PATHS)
        and path[1:] in files()
        and environ["REQUEST_METHOD"] in ("GET", "HEAD")
    )


def static_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A WSGI application with the browser half's files, to be mounted anywhere.

    It goes by the last part of the path: mounted at `/assets`, it answers
    `/assets/plainsocket.js`. Browsers ask each time whether a file has changed (`ETag`, 304),
    unless the URL has the file's tag as its query, as `static_url` makes it.
    """
    file = files().get(environ.get("PATH_INFO", "").rpartition("/")[2])
    if file is None:
        return _plain(start_response, "404 Not Found", b"There is no such file.\n")
    method = environ["REQUEST_METHOD"]
    if method not in ("GET", "HEAD"):
        return _plain(start_response, "405 Method Not Allowed", b"", ("Allow", "GET, HEAD"))
    is_tagged = file.tag in environ.get("QUERY_STRING", "").split("&")
    headers = [
        *_HEADERS,
        ("ETag", f'"{file.tag}"'),
        ("Cache-Control", _FOREVER if is_tagged else "no-cache"),
    ]
    known = environ.get("HTTP_IF_NONE_MATCH", "")
    # A proxy that compresses makes the tag a weak one (RFC 9110 section 8.8.3.2).
    if file.tag in [tag.strip().removeprefix("W/").strip('"') for tag in known.split(",")]:
        start_response("304 Not Modified", headers)
        return []
    length = ("Content-Length", str(len(file.content)))
    start_response("200 OK", [*headers, ("Content-Type", file.content_type), length])
    return [] if method == "HEAD" else [file.content]


def static_url(name: str = "plainsocket.js", prefix: str = "/") -> str:
    """The URL of a file that may be kept for ever: it changes with the file.

    Raises KeyError for a name that is none.
    """
    return f"{prefix}{name}?{files()[name].tag}"


def _plain(start_response: Any, status: str, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), length, *headers])
    return [body]
