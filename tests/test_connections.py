"""connections.py: a set like any other."""

from __future__ import annotations

import random

import plainsocket
from plainsocket.connections import Connections
from plainsocket.handshake import Request


def a_websocket() -> plainsocket.WebSocket:
    return plainsocket.WebSocket(plainsocket.Options(), Request("GET", "HTTP/1.1", {}))


def test_who_comes_and_goes() -> None:
    connections, model = Connections(), set[plainsocket.WebSocket]()
    all_there_are = [a_websocket() for _ in range(20)]
    chance = random.Random(1)
    for _ in range(500):
        websocket = chance.choice(all_there_are)
        assert (websocket in connections) is (websocket in model)
        if websocket in model:
            model.remove(websocket)
            connections.remove(websocket)
        else:
            model.add(websocket)
            connections.add(websocket)
        assert len(connections) == len(model)
        assert set(connections) == model
        assert bool(connections) is bool(model)


def test_it_may_change_while_it_is_gone_through() -> None:
    connections = Connections()
    three = [a_websocket() for _ in range(3)]
    for websocket in three:
        connections.add(websocket)
    seen = set()
    for websocket in connections:
        seen.add(websocket)
        connections.remove(websocket)
    assert seen == set(three)
    assert not connections


def test_two_sets_know_their_own() -> None:
    one, other = Connections(), Connections()
    mine, theirs = a_websocket(), a_websocket()
    one.add(mine)
    other.add(theirs)
    assert theirs not in one
    assert one & other == set()
    assert one | other == {mine, theirs}
