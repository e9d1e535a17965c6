"""socketify (uWebSockets in C++). Raised: the 64 KiB of backpressure above which
it drops messages, which 1 MiB echoes would meet."""

from __future__ import annotations

from socketify import App, AppListenOptions, AppOptions, CompressOptions, OpCode

from arguments import HOST, read_arguments

LIMIT = 16 * 1024 * 1024


def echo(ws, message, opcode):
    ws.send(message, opcode, arguments.deflate)


def broadcast(ws, message, opcode):
    application.publish("all", message, OpCode.TEXT)


def settings(on_message, on_open=None):
    return {
        "compression": (
            CompressOptions.SHARED_COMPRESSOR if arguments.deflate else CompressOptions.DISABLED
        ),
        "max_payload_length": LIMIT,
        "max_backpressure": LIMIT,
        "message": on_message,
        **({"open": on_open} if on_open else {}),
    }


arguments = read_arguments()
if arguments.tls:
    certificate, key = arguments.tls
    application = App(AppOptions(key_file_name=key, cert_file_name=certificate))
else:
    application = App()
application.ws("/echo", settings(echo))
application.ws("/broadcast", settings(broadcast, on_open=lambda ws: ws.subscribe("all")))
application.listen(AppListenOptions(port=arguments.port, host=HOST), lambda config: None)
application.run()
