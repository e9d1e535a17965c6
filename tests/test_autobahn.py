"""Autobahn's conformance cases, run by kosoku against the demo's echo handler."""

from __future__ import annotations

import asyncio

import kosoku
import pytest

pytestmark = pytest.mark.autobahn

# Limits and performance (9) take minutes; compression (12 and 13) is not negotiated here.
EXCLUDED = ["9.*", "12.*", "13.*"]
CASES = 247

# Cases that leave open what a peer does, so that no verdict better than this can be had.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


@pytest.mark.timeout(300)
def test_every_case_is_passed_strictly(demo_url: str) -> None:
    echo_url = demo_url.replace("http:", "ws:") + "echo"
    try:
        results = asyncio.run(
            kosoku.run_fuzzingclient(echo_url, exclude_cases=EXCLUDED, concurrency=8)
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
    assert len({case.case_id for case in results}) == CASES
