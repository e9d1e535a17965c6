"""head.py: which request heads are read, what they say, and how all others are refused."""

from __future__ import annotations

import re
import string
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plainsocket.head import Head, HeadError, find_end, parse_head
from plainsocket.lines import cut_lines

MAX_SIZE = 65536
MAX_HEADERS = 100


def parse(data: bytes) -> Head:
    return parse_head(data, max_headers=MAX_HEADERS)


def parse_lines(*lines: bytes) -> Head:
    """The head of these lines: a request line and headers."""
    return parse(b"\r\n".join([*lines, b"", b""]))


def with_header(*lines: bytes) -> Head:
    """A good head with these lines added."""
    return parse_lines(b"GET / HTTP/1.1", b"Host: a.example", *lines)


def with_target(target: bytes, method: bytes = b"GET") -> Head:
    return parse_lines(method + b" " + target + b" HTTP/1.1", b"Host: a.example")


def refused(data: bytes) -> HeadError:
    with pytest.raises(HeadError) as caught:
        parse(data)
    return caught.value


def outcome_of(data: bytes) -> Head | HTTPStatus:
    try:
        return parse(data)
    except HeadError as error:
        return error.status


# -- where it ends -------------------------------------------------------------------------------


def read_in_pieces(data: bytes, sizes: list[int], max_size: int) -> int | HTTPStatus | None:
    """What a reader finds who gets `data` in pieces of these sizes, and then the rest."""
    received = bytearray()
    try:
        for size in [*sizes, len(data)]:
            start = len(received)
            received += data[start : start + size]
            end = find_end(received, start, max_size=max_size)
            if end is not None:
                return end
    except HeadError as error:
        return error.status
    return None


def test_end_is_behind_the_blank_line() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert find_end(head + b"body\r\n\r\n", max_size=MAX_SIZE) == len(head)
    assert find_end(head[:-1], max_size=MAX_SIZE) is None
    assert find_end(b"", max_size=MAX_SIZE) is None


@pytest.mark.parametrize("step", range(1, 6))
def test_end_is_found_however_the_bytes_arrive(step: int) -> None:
    head = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert read_in_pieces(head, [step] * len(head), MAX_SIZE) == len(head)


def test_what_was_searched_before_is_not_searched_again() -> None:
    data = b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100
    assert find_end(data, len(data) - 10, max_size=MAX_SIZE) is None


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_blank_line_of_bare_lfs_is_refused_and_not_waited_for(ending: bytes) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a" + ending
    assert find_end(data, max_size=MAX_SIZE) == len(data)
    assert refused(data).status == 400


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"\n", b" GET", b"\x00", b"\xff"])
def test_what_can_not_become_a_request_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        find_end(data, max_size=MAX_SIZE)
    assert caught.value.status == 400


def test_head_may_be_as_long_as_the_limit() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert find_end(head, max_size=len(head)) == len(head)
    with pytest.raises(HeadError) as caught:
        find_end(head, max_size=len(head) - 1)
    assert caught.value.status == 431


def test_no_more_is_waited_for_than_may_come() -> None:
    assert find_end(b"GET / HTTP/1.1\r\nHost", max_size=21) is None
    with pytest.raises(HeadError):
        find_end(b"GET / HTTP/1.1\r\nHost:", max_size=21)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 100, 414),
        (b"\r\nGET /" + b"a" * 100, 414),
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 100, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 100 + b"\r\n\r\n", 431),
    ],
)
def test_too_long(data: bytes, status: int) -> None:
    for sizes in ([], [1] * len(data), [63, 1], [64]):
        assert read_in_pieces(data, sizes, 64) == status


@given(
    st.lists(st.sampled_from([b"GET / HTTP/1.1", b"\r", b"\n", b"\r\n", b"a", b":"])),
    st.lists(st.integers(1, 9)),
    st.integers(1, 60),
)
def test_end_does_not_depend_on_the_pieces(
    parts: list[bytes], sizes: list[int], max_size: int
) -> None:
    data = b"".join(parts)
    assert read_in_pieces(data, sizes, max_size) == read_in_pieces(data, [], max_size)


# -- what it says --------------------------------------------------------------------------------


def test_head() -> None:
    head = parse_lines(
        b"GET /chat/%C3%A9?room=1&x=a?b HTTP/1.1",
        b"Host: a.example:8087",
        b"X-Thing:  one\t",
        b"Cookie: a=1",
        b"x-thing:two",
        b"COOKIE: b=2",
        b"Empty:",
        b"Latin: \xe9\xa0",
    )
    assert head == Head(
        method="GET",
        target="/chat/%C3%A9?room=1&x=a?b",
        path="/chat/%C3%A9",
        query="room=1&x=a?b",
        version="HTTP/1.1",
        headers=[
            ("Host", "a.example:8087"),
            ("X-Thing", "one"),
            ("Cookie", "a=1"),
            ("x-thing", "two"),
            ("COOKIE", "b=2"),
            ("Empty", ""),
            ("Latin", "\xe9\xa0"),
        ],
        fields={
            "host": "a.example:8087",
            "x-thing": "one, two",
            "cookie": "a=1; b=2",
            "empty": "",
            "latin": "\xe9\xa0",
        },
        content_length=None,
        is_chunked=False,
    )


def test_one_empty_line_may_come_first() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert parse(b"\r\n" + head) == parse(head)
    assert refused(b"\r\n\r\n" + head).status == 400
    assert refused(b"\n" + head).status == 400


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\n\n", b"\r\n\r", b"\r\n\r\nmore"])
def test_head_without_its_end_is_refused(end: bytes) -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: a.example" + end).status == 400


def test_request_without_headers() -> None:
    head = parse_lines(b"GET / HTTP/1.0")
    assert (head.version, head.headers, head.fields) == ("HTTP/1.0", [], {})


@pytest.mark.parametrize(
    ("version", "connection", "expected"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Upgrade", True),
        (b"1.1", b"close", False),
        (b"1.1", b"keep-alive, Close", False),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_keep_alive(version: bytes, connection: bytes, expected: bool) -> None:
    head = parse_lines(b"GET / HTTP/" + version, b"Host: a", b"Connection: " + connection)
    assert head.keep_alive is expected


# -- request lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET / ",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET / a HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"G\xc3\xa9T / HTTP/1.1",
        b" / HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/11.1",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/\xb9.1",
        b"GET / HTPP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\nHTTP/1.1",
    ],
)
def test_malformed_request_line(line: bytes) -> None:
    assert refused(line + b"\r\nHost: a\r\n\r\n").status == 400


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"9.9"])
def test_other_versions(version: bytes) -> None:
    assert refused(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n").status == 505


def test_http_2_is_told_by_its_preface() -> None:
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    end = find_end(data, max_size=MAX_SIZE)
    assert refused(data[:end]).status == 505


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/?", "/", ""),
        (b"/a/../b/.", "/a/../b/.", ""),
        (b"//evil.example/a?b", "//evil.example/a", "b"),
        (b"/http://a/?b=http://c", "/http://a/", "b=http://c"),
        (b'/{a}|^"`<>\\[%zz]', '/{a}|^"`<>\\[%zz]', ""),  # browsers send some of these
        (b"http://b.example", "/", ""),
        (b"http://b.example?x", "/", "x"),
        (b"HTTPS://b.example:443/a/b?c?d", "/a/b", "c?d"),
        (b"http://[::1]:80//a", "//a", ""),
    ],
)
def test_target(target: bytes, path: str, query: str) -> None:
    head = with_target(target)
    assert (head.target, head.path, head.query) == (target.decode(), path, query)


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"a.example:80",
        b"a",
        b"?a",
        b"/#",
        b"/a#b",
        b"http://b.example/#a",
        b"/\x7f",
        b"/\x1b",
        b"/\xc3\xa9",
        b"http://",
        b"http:///a",
        b"http:/a",
        b"http://user@b.example/",
        b"http://b.example:99999/",
        b"http://b.example:x/",
        b"http://b.example\\a/",
        b"http://[::g]/",
        b"ws://b.example/",
        b"ftp://b.example/",
        b"javascript:alert(1)",
    ],
)
def test_malformed_target(target: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        with_target(target)
    assert caught.value.status == 400


def test_asterisk_is_for_options() -> None:
    head = with_target(b"*", b"OPTIONS")
    assert (head.path, head.query) == ("*", "")


@pytest.mark.parametrize("target", [b"a.example:443", b"/", b"http://a.example/", b"*"])
def test_connect_is_refused(target: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        with_target(target, b"CONNECT")
    assert caught.value.status == 400


def test_host_of_an_absolute_target_replaces_the_header() -> None:
    head = parse_lines(b"GET http://b.example:81/ HTTP/1.1", b"A: 1", b"hOST: a.example", b"B: 2")
    assert head.headers == [("A", "1"), ("hOST", "b.example:81"), ("B", "2")]
    assert head.fields["host"] == "b.example:81"


def test_host_of_an_absolute_target_is_added_where_there_is_none() -> None:
    head = parse_lines(b"GET http://b.example/ HTTP/1.0", b"A: 1")
    assert head.headers == [("Host", "b.example"), ("A", "1")]


# -- headers -------------------------------------------------------------------------------------

CONTROLS = [bytes([byte]) for byte in [*range(0x20), 0x7F] if byte != 0x09]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"A",
        b": 1",
        b" : 1",
        b" A: 1",
        b"\tA: 1",
        b" folded",
        b"\tfolded",
        b"A : 1",
        b"A\t: 1",
        b"A B: 1",
        b"A(: 1",
        b"A\x00: 1",
        b"\xc3\xa9: 1",
        b"A\xa0: 1",
        b"\nA: 1",
        b"A: 1\nB: 2",
        b"A\n: 1",
        b"A: 1\r",
        b"\rA: 1",
    ],
)
def test_malformed_header(line: bytes) -> None:
    for lines in ([line], [b"X: 1", line], [line, b"X: 1"]):
        with pytest.raises(HeadError) as caught:
            with_header(*lines)
        assert caught.value.status == 400


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("value", [b"%s", b"a%s", b"%sa", b"a%sb"])
def test_no_control_characters_in_values(control: bytes, value: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        with_header(b"A: " + value.replace(b"%s", control))
    assert caught.value.status == 400


def test_number_of_headers_is_limited() -> None:
    lines = [b"GET / HTTP/1.1", b"Host: a"] + [b"A: 1"] * (MAX_HEADERS - 1)
    assert len(parse_lines(*lines).headers) == MAX_HEADERS
    with pytest.raises(HeadError) as caught:
        parse_lines(*lines, b"A: 1")
    assert caught.value.status == 431


@pytest.mark.parametrize(
    "host",
    ["a", "a.example.", "A-b_c.example:", "a:0", "a:65535", "127.0.0.1:80", "[::1]", "[::1]:80",
     "[::ffff:1.2.3.4]", "%C3%A9.example", "xn--e1afmkfd.example"],
)  # fmt: skip
def test_host(host: str) -> None:
    assert parse_lines(b"GET / HTTP/1.1", b"host: " + host.encode()).fields["host"] == host


@pytest.mark.parametrize(
    "host",
    ["", ":80", "a:b", "a:65536", "a:0000000000065536", "a:-1", "a:80:80", "a b", "a,b", "a/b",
     "a\\b", "a@b", "a?b", "a#b", "http://a", "::1", "[::1", "[]", "[1]", "[::1%eth0]", "[::1]a",
     "[v1.a]", "%zz", "\xe9.example", "a\tb"],
)  # fmt: skip
def test_malformed_host(host: str) -> None:
    for version in (b"1.0", b"1.1"):
        line = b"Host: " + host.encode("latin-1")
        assert refused(b"GET / HTTP/%s\r\n%s\r\n\r\n" % (version, line)).status == 400


def test_host_must_be_there_once() -> None:
    assert refused(b"GET / HTTP/1.1\r\nA: 1\r\n\r\n").status == 400
    assert refused(b"GET http://a/ HTTP/1.1\r\nA: 1\r\n\r\n").status == 400
    for version in (b"1.0", b"1.1"):
        for other in (b"a", b"b"):
            lines = b"Host: a\r\nhost: " + other
            assert refused(b"GET / HTTP/%s\r\n%s\r\n\r\n" % (version, lines)).status == 400


# -- bodies: the shapes of request smuggling -----------------------------------------------------


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"42", 42), (b"  007 ", 7)])
def test_content_length(value: bytes, length: int) -> None:
    head = with_header(b"Content-Length: " + value)
    assert (head.content_length, head.is_chunked) == (length, False)


@pytest.mark.parametrize(
    "value",
    [b"", b"+5", b"-5", b"5 5", b"5,5", b"5, 5", b"5,6", b"0x5", b"5.0", b"5e0", b"1_0", b"5;",
     b"a", b"\xb2", b"\xd9\xa3", b'"5"', b"5\x00", b"5\x0b", b"5\xa0"],
)  # fmt: skip
def test_malformed_content_length(value: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        with_header(b"Content-Length: " + value)
    assert caught.value.status == 400


@pytest.mark.parametrize("second", [b"5", b"6", b"", b"05"])
def test_two_content_lengths(second: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        with_header(b"Content-Length: 5", b"content-length: " + second)
    assert caught.value.status == 400


@pytest.mark.parametrize("digits", [19, 5000])
def test_absurd_content_length(digits: int) -> None:
    with pytest.raises(HeadError) as caught:
        with_header(b"Content-Length: " + b"9" * digits)
    assert caught.value.status == 413


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" CHUNKED\t"])
def test_chunked(value: bytes) -> None:
    head = with_header(b"Transfer-Encoding: " + value)
    assert (head.content_length, head.is_chunked) == (None, True)


@pytest.mark.parametrize(
    "value",
    [b"gzip", b"identity", b"gzip, chunked", b"xchunked", b"chunked;a=b", b"", b"chunked\xa0",
     b'"chunked"', b"chunked x"],
)  # fmt: skip
def test_unknown_transfer_encoding(value: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        with_header(b"Transfer-Encoding: " + value)
    assert caught.value.status == 501


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: chunked, gzip"],
        [b"Transfer-Encoding: chunked,"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"transfer-encoding: identity"],
        [b"Transfer-Encoding: \x0bchunked"],
        [b"Transfer-Encoding : chunked"],
        [b"X: a\r", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 0", b"Transfer-Encoding: gzip"],
        [b"Content-Length: 0", b"Transfer-Encoding:"],
    ],
)
def test_ambiguous_body(lines: list[bytes]) -> None:
    with pytest.raises(HeadError) as caught:
        with_header(*lines)
    assert caught.value.status == 400


def test_http_1_0_has_no_transfer_encoding() -> None:
    data = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refused(data).status == 400


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", "LF"),
        (b"GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", "LF"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "second line"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "White space"),
        (b"GET / HTTP/1.1\r\n\r\n", "no Host"),
    ],
)
def test_reason_says_what_is_wrong(data: bytes, part: str) -> None:
    assert part in refused(data).reason
    assert str(refused(data)).startswith("400 ")


SECRET = b"s3cret"


@pytest.mark.parametrize(
    "data",
    [
        b"s3cret",
        b"GET /s3cret\xff HTTP/1.1\r\n\r\n",
        b"s3cret / HTTP/s3cret\r\n\r\n",
        b"GET / HTTP/1.1\r\ns3cret s3cret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\ns3cret : s3cret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: s3cret s3cret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: s3cret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: s3cret\r\n\r\n",
    ],
)
def test_reason_quotes_nothing(data: bytes) -> None:
    assert SECRET.decode() not in str(refused(data))


# -- any input -----------------------------------------------------------------------------------

TOKEN = st.text("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters, min_size=1)
VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
VALUE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f") | st.just("\t")
).map(lambda text: text.strip(" \t"))
SPECIAL = {"host", "content-length", "transfer-encoding"}
HEADERS = st.lists(
    st.tuples(TOKEN.filter(lambda name: name.lower() not in SPECIAL), VALUE), max_size=20
)
PATH = st.text(VISIBLE, max_size=30).map(lambda text: "/" + re.sub("[?#]", "", text))
QUERY = st.text(VISIBLE, max_size=30).map(lambda text: text.replace("#", ""))
HOST = st.sampled_from(["a", "a.example:80", "[::1]:8087"])
BLANK = st.text(" \t", max_size=3)
SHAPES = [
    b"GET", b" ", b"/", b"*", b"?", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b":", b": ",
    b"Host", b"a", b"5", b"Content-Length", b"Transfer-Encoding", b"chunked", b"http://", b"[::1]",
    b"\x00", b"\xff", b",", b"CONNECT", b"OPTIONS",
]  # fmt: skip


@given(TOKEN.filter(lambda name: name != "CONNECT"), PATH, QUERY, HEADERS, HOST, st.data())
def test_any_valid_head_is_read(
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    host: str,
    data: st.DataObject,
) -> None:
    headers.insert(data.draw(st.integers(0, len(headers))), ("Host", host))
    target = f"{path}?{query}" if query else path
    version = data.draw(st.sampled_from(["HTTP/1.0", "HTTP/1.1"]))
    lines = [f"{method} {target} {version}"]
    lines += [f"{name}:{data.draw(BLANK)}{value}{data.draw(BLANK)}" for name, value in headers]
    sent = "\r\n".join([*lines, "", ""]).encode("latin-1")
    assert find_end(sent + b"more", max_size=MAX_SIZE) == len(sent)
    head = parse(sent)
    assert (head.method, head.target, head.version) == (method, target, version)
    assert (head.path, head.query, head.headers) == (path, query, headers)
    assert set(head.fields) == {name.lower() for name, _ in headers}
    for name, value in headers:
        assert value in head.fields[name.lower()]


@given(st.binary() | st.lists(st.sampled_from(SHAPES)).map(b"".join))
@example(b"")
@example(b"\r\n")
@example(b"\r\n\r\n")
@example(b"\r\n\r\n\r\n")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for each in (data, data + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"):
        outcome = outcome_of(each)
        if isinstance(outcome, Head):
            assert all(not set("\r\n\0") & set(name + value) for name, value in outcome.headers)
            assert outcome.content_length is None or not outcome.is_chunked
        with_limit = read_in_pieces(each, [1] * len(each), 40)
        assert with_limit in {None, 400, 414, 431} or with_limit <= 40


_PLACES = [b"G%cT / HTTP/1.1", b"GET /%c HTTP/1.1", b"GET / HTTP/1.%c"]
_PLACES += [b"GET / HTTP/1.1\r\n" + line for line in (b"n%cm: v", b"n: v%cl", b"n:%cv", b"n: v%c")]


@pytest.mark.parametrize("place", _PLACES)
def test_each_byte_is_taken_or_refused_the_same_in_c(place: bytes) -> None:
    for byte in range(256):
        data = place % byte + b"\r\nHost: x\r\n\r\n"
        cut = cut_lines(data)
        if cut is None:
            with pytest.raises(HeadError):
                parse_head(data, max_headers=100)
        else:
            head = parse_head(data, max_headers=100)
            assert (head.target, head.headers, head.fields) == (cut[1], cut[3], cut[4])
