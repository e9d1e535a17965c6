"""A client's side of TLS in tests."""

from __future__ import annotations

import ssl
import sys

import trustme


def trusting(authority: trustme.CA, *, threads: bool = True) -> ssl.SSLContext:
    """A context that trusts `authority`; `threads`: for a client that uses it in several."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if threads and sys.version_info < (3, 13):
        # The `websockets` client reads in one thread while it writes in another. Before 3.13
        # Python does not guard the TLS state against that, and the session tickets of TLS 1.3,
        # read just then, make about one request in 400 vanish.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
