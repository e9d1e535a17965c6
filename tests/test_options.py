"""options.py: defaults that hold, and bad values that say what is wrong with them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from plainsocket.options import Options

SIZES = [
    "max_head_size",
    "max_headers",
    "max_body_size",
    "max_connections",
    "max_connections_per_address",
    "max_message_size",
    "max_fragments",
    "read_limit",
    "max_handlers",
    "write_limit",
    "http_sessions",
    "http_sessions_per_address",
    "http_channels",
    "http_window",
]
TIMES = [
    "handshake_timeout",
    "message_timeout",
    "body_timeout",
    "dispatch_timeout",
    "batch_time",
    "ping_interval",
    "ping_timeout",
    "close_timeout",
    "send_timeout",
    "compression_idle",
]
MAY_BE_NONE = [
    "max_connections",
    "max_connections_per_address",
    "http_sessions_per_address",
    "ping_interval",
]
RANGES = {"compression_level": (1, 9), "compression_window_bits": (9, 15)}
OTHERS = [
    "compression_threshold",
    "compression",
    "compression_context",
    "trusted_proxies",
    "proxy_protocol",
    "flash_policy",
    "observer",
    "origins",
    "subprotocols",
    "process_request",
    "stop_timeout",
    "http_carrier",
    "browser_files",
    "http_polling",
    "nodes",
]


def test_defaults_are_good() -> None:
    options = Options()
    assert options.origins is None
    assert options.subprotocols == ()
    assert options.max_message_size == 2**20
    assert options.ping_interval == 20.0


def test_each_option_is_in_a_table_of_these_tests() -> None:
    names = {field.name for field in dataclasses.fields(Options)}
    assert names == {*SIZES, *TIMES, *RANGES, *OTHERS}


def test_options_cannot_be_changed_behind_a_servers_back() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Options(), "max_fragments", 1)  # noqa: B010 - mypy refuses the plain assignment


@pytest.mark.parametrize(
    "good",
    [
        *({name: 1} for name in SIZES),
        *({name: 0.001} for name in TIMES),
        *({name: None} for name in MAY_BE_NONE),
        {"compression_threshold": 0},
        *({name: bound} for name, bounds in RANGES.items() for bound in bounds),
        {"stop_timeout": 0},
        {"origins": "*"},
        {"origins": []},
        {"origins": ["https://example.com"]},
        {"origins": ("https://example.com", "null")},
        {"origins": ["self", "https://*.example.com"]},
        {"origins": lambda origin, request: bool(origin and request)},
        {"subprotocols": []},
        {"subprotocols": ["chat", "superchat"]},
    ],
)
def test_good_value(good: dict[str, Any]) -> None:
    options = Options(**good)
    assert {name: getattr(options, name) for name in good} == good


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SIZES for value in (0, -1)),
        *((name, value) for name in TIMES for value in (0, -0.5)),
        *((name, least - 1) for name, (least, _) in RANGES.items()),
        *((name, most + 1) for name, (_, most) in RANGES.items()),
        *((name, 9.5) for name in RANGES),
        ("compression_threshold", -1),
        ("compression_threshold", "1"),
        ("stop_timeout", -0.1),
    ],
)
def test_value_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        Options(**{name: value})  # type: ignore[arg-type]


# A deadline of these would only break later, in the hub, at the first timer that is set to it.
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", [*TIMES, "stop_timeout"])
def test_time_that_is_no_time_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Options(**{name: value})  # type: ignore[arg-type]


# None is a likely slip, as some take it.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in (*SIZES, *TIMES, "stop_timeout")
        for value in (None, "10", [10])
        if value is not None or name not in MAY_BE_NONE
    ],
)
def test_value_of_a_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        Options(**{name: value})


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"subprotocols": "chat"}, "subprotocols is a list of names, not one str"),
        ({"subprotocols": ""}, "subprotocols is a list of names, not one str"),
        (
            {"origins": "https://example.com"},
            'origins is "\\*", a list of origins or a function, not one str',
        ),
        ({"origins": ""}, 'origins is "\\*", a list of origins or a function, not one str'),
    ],
)
def test_one_str_where_a_list_belongs(bad: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Options(**bad)
