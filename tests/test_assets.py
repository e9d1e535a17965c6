"""The browser half's files, as they are served."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from gevent.pywsgi import WSGIHandler

import plainsocket
from plainsocket.assets import files
from serving import PATIENCE, echo, serving
from test_handler import pywsgi


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application's"]


@pytest.fixture(
    scope="module", params=["serve", "routes and app", "handler", "middleware", "mounted"]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the files are, with each way to serve them."""
    if request.param == "serve":
        with serving(echo) as running:
            yield f"http://127.0.0.1:{running.port}"
    elif request.param == "routes and app":
        with serving({"/echo": echo}, app=app) as running:
            yield f"http://127.0.0.1:{running.port}"
    elif request.param == "handler":
        with pywsgi(app) as server:
            yield f"http://127.0.0.1:{server.port}"
    elif request.param == "middleware":
        with pywsgi(plainsocket.wsgi(app), WSGIHandler) as server:
            yield f"http://127.0.0.1:{server.port}"
    else:
        with pywsgi(plainsocket.static_app, WSGIHandler) as server:
            yield f"http://127.0.0.1:{server.port}/static/js"


def get(url: str, method: str = "GET", **headers: str) -> Any:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as got:
            got.content = got.read()
            return got
    except urllib.error.HTTPError as error:
        with error:
            error.content = error.read()  # type: ignore[attr-defined]
            return error


def test_there_are_files() -> None:
    assert {"plainsocket.js", "plainsocket.mjs", "plainsocket-http.js"} <= set(files())
    assert {"plainsocket-flash.js", "bridge.swf"} <= set(files())
    assert "demo.html" not in files()


@pytest.mark.parametrize("name", sorted(files()))
def test_file(url: str, name: str) -> None:
    got = get(f"{url}/{name}")
    assert got.status == 200
    assert got.content == files()[name].content
    is_script = not name.endswith(".swf")
    expected = "text/javascript; charset=utf-8" if is_script else "application/x-shockwave-flash"
    assert got.headers["content-type"] == expected
    assert got.headers["cache-control"] == "no-cache"
    assert got.headers["access-control-allow-origin"] == "*"
    assert got.headers["cross-origin-resource-policy"] == "cross-origin"
    assert got.headers["x-content-type-options"] == "nosniff"
    head = get(f"{url}/{name}", "HEAD")
    assert head.headers["content-length"] == str(len(got.content))
    for known in (got.headers["etag"], f'"x", W/{got.headers["etag"]}'):
        again = get(f"{url}/{name}", if_none_match=known, **{"If-None-Match": known})
        assert again.status == 304
        assert again.headers["etag"] == got.headers["etag"]
    assert get(f"{url}/{name}", **{"If-None-Match": '"other"'}).status == 200


def test_url_that_changes_with_the_file_may_be_kept(url: str) -> None:
    forever = plainsocket.static_url("plainsocket.mjs", f"{url}/")
    assert "immutable" in get(forever).headers["cache-control"]
    assert get(f"{forever}x").headers["cache-control"] == "no-cache"


def test_other_names() -> None:
    with pywsgi(plainsocket.static_app, WSGIHandler) as server:
        at = f"http://127.0.0.1:{server.port}"
        for path in ("/", "/demo.html", "/plainsocket.d.mts", "/plainsocket.js/..", "/%2e%2e"):
            assert get(at + path).status == 404
        refused = get(f"{at}/plainsocket.js", "POST")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    with serving({"/echo": echo}, app=app) as running:
        assert get(f"http://127.0.0.1:{running.port}/plainsocket.css").content == (
            b"the application's"
        )


def test_switched_off() -> None:
    with serving({"/echo": echo}, app=app, browser_files=False) as running:
        assert get(f"http://127.0.0.1:{running.port}/plainsocket.js").content == (
            b"the application's"
        )
    with serving(echo, browser_files=False) as running:
        assert get(f"http://127.0.0.1:{running.port}/plainsocket.js").status == 426


def test_names_that_are_none() -> None:
    with pytest.raises(KeyError):
        plainsocket.static_url("elsewhere.js")
