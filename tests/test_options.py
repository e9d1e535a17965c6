"""options.py: defaults that hold, and bad values that say what is wrong with them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from plainsocket.options import Options

SIZES = ["max_message_size", "max_fragments", "write_limit"]
TIMES = ["handshake_timeout", "ping_timeout", "close_timeout", "send_timeout"]


def test_defaults_are_good() -> None:
    options = Options()
    assert options.origins is None
    assert options.subprotocols == ()
    assert options.max_message_size == 2**20
    assert options.ping_interval == 20.0


def test_options_cannot_be_changed_behind_a_servers_back() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Options(), "max_fragments", 1)  # noqa: B010 - mypy refuses the plain assignment


@pytest.mark.parametrize(
    "good",
    [
        *({name: 1} for name in SIZES),
        *({name: 0.001} for name in TIMES),
        {"ping_interval": None},
        {"ping_interval": 0.001},
        {"stop_timeout": 0},
        {"origins": "*"},
        {"origins": []},
        {"origins": ["https://example.com"]},
        {"origins": ("https://example.com", "null")},
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
        ("ping_interval", 0),
        ("ping_interval", -1),
        ("stop_timeout", -0.1),
    ],
)
def test_value_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        Options(**{name: value})  # type: ignore[arg-type]


# A deadline of these would only break later, in the hub, at the first timer that is set to it.
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", [*TIMES, "ping_interval", "stop_timeout"])
def test_time_that_is_no_time_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Options(**{name: value})  # type: ignore[arg-type]


# None is a likely slip, as ping_interval takes it.
@pytest.mark.parametrize("value", [None, "10"])
@pytest.mark.parametrize("name", [*SIZES, *TIMES, "stop_timeout"])
def test_value_of_a_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        Options(**{name: value})


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"subprotocols": "chat"}, "subprotocols is a list of names, not one str"),
        ({"subprotocols": ""}, "subprotocols is a list of names, not one str"),
        ({"origins": "https://example.com"}, 'origins is "\\*" or a list of origins, not one str'),
        ({"origins": ""}, 'origins is "\\*" or a list of origins, not one str'),
    ],
)
def test_one_str_where_a_list_belongs(bad: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Options(**bad)
