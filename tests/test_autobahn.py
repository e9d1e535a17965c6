"""Autobahn's conformance cases, all 517, run by kosoku against an echo.

The long ones, 9 (limits and performance), 12 and 13 (compression), are represented by a few here,
unless PLAINSOCKET_AUTOBAHN=all, as `make autobahn` sets it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import kosoku
import pytest

from processes import running

pytestmark = [pytest.mark.autobahn, pytest.mark.timeout(1800)]

LONG = {"9.*": 54, "12.*": 90, "13.*": 126}
SHORT_CASES = 247
ALL = os.environ.get("PLAINSOCKET_AUTOBAHN") == "all"

# Of 12, five kinds of data, and of 13, seven sets of parameters: messages of 256 bytes, and, of
# 12, of 8 KiB in frames of 256 bytes.
SOME_COMPRESSION = [f"12.{kind}.{size}" for kind in range(1, 6) for size in (3, 11)]
SOME_COMPRESSION += [f"13.{kind}.3" for kind in range(1, 8)]

# Cases that leave open what a peer does, so that no verdict better than this can be had.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

# A threshold of 0: where compression was agreed on, kosoku 0.1 fails in itself ("Strings must be
# encoded before hashing") when a message comes uncompressed, as RFC 7692 section 6 allows.
SERVER = """
import sys
import plainsocket
from plainsocket.demo import echo

options = {
    "max_message_size": 16 << 20,
    "compression": True,
    "compression_threshold": 0,
    "compression_context": sys.argv[1] == "context",
}
with plainsocket.Server({"/echo": echo}, port=0, **options) as server:
    print("port", server.address[1], flush=True)
    server.serve_forever()
"""


@pytest.fixture(scope="module", params=["alone", "context"])
def echo_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Of a server that compresses each message alone, and of one that does it with context."""
    program = Path(tmp_path_factory.mktemp("autobahn"), "server.py")
    program.write_text(SERVER)
    with running(sys.executable, str(program), str(request.param)) as server:
        yield f"ws://127.0.0.1:{server.wait_for('port ([0-9]+)')[1]}/echo"


def check(url: str, count: int, cases: list[str] | None, excluded: list[str] | None) -> None:
    try:
        results = asyncio.run(
            kosoku.run_fuzzingclient(url, cases, exclude_cases=excluded, concurrency=8)
        )
    except kosoku.FailureError as failure:
        results = failure.results  # all of them, the passed ones too

    offending = []
    for case in results:
        verdicts = {case.behavior.value, case.behavior_close.value}
        if verdicts - ({"OK", "INFORMATIONAL"} if case.case_id in INFORMATIONAL else {"OK"}):
            offending.append(
                f"{case.case_id}: {case.behavior.value}, on closing {case.behavior_close.value}\n"
                f"    expected: {case.expectation}\n"
                f"    {case.result} {case.result_close}"
            )
    if offending:
        pytest.fail(
            f"{len(offending)} of {len(results)} cases:\n" + "\n".join(offending), pytrace=False
        )
    # A run that ran nothing must not pass.
    assert len({case.case_id for case in results}) == count


def test_every_case_is_passed_strictly(demo_url: str) -> None:
    echo_url = demo_url.replace("http:", "ws:") + "echo"
    check(echo_url, SHORT_CASES, None, list(LONG))


def test_limits_and_performance(echo_url: str) -> None:
    check(echo_url, LONG["9.*"], ["9.*"], None)


# kosoku leaves the files that it sends open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_compression(echo_url: str) -> None:
    if ALL:
        check(echo_url, LONG["12.*"] + LONG["13.*"], ["12.*", "13.*"], None)
    else:
        check(echo_url, len(SOME_COMPRESSION), SOME_COMPRESSION, None)
