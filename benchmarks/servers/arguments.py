"""The command line that all servers share: --port N [--tls CERTIFICATE KEY] [--deflate]."""

from __future__ import annotations

import argparse
import resource
import ssl
import sys
from typing import NoReturn

HOST = "127.0.0.1"
SKIPPED = 77  # exit status: this server can't run here, and says why on stderr


class Arguments(argparse.Namespace):
    port: int
    tls: list[str] | None
    deflate: bool

    def ssl_context(self, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext | None:
        if not self.tls:
            return None
        context = kind(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.tls)
        return context


def read_arguments() -> Arguments:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    parser.add_argument("--deflate", action="store_true")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return parser.parse_args(namespace=Arguments())


def skip(reason: str) -> NoReturn:
    """Ends a server that can't run here; the runner shows the reason."""
    print(reason, file=sys.stderr)
    sys.exit(SKIPPED)
