#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options options = {
    .mode = "echo",
    .connections = 100,
    .in_flight = 1,
    .senders = 1,
    .size = 32,
    .payload = PAYLOAD_TEXT,
    .warmup = 0.5,
    .seconds = 2,
    .timeout = 10,
    .max_messages = 200000000,
    .seed = 1,
};

static const char features[] =
#ifdef LOAD_TLS
    "tls "
#endif
#ifdef LOAD_ZLIB
    "deflate "
#endif
    "";

static const char usage[] =
    "usage: load --port N [--mode echo|broadcast|handshake|idle] [options]\n"
    "\n"
    "A load generator for WebSocket servers on this machine; JSON on stdout.\n"
    "\n"
    "  --host ADDRESS       numeric, and only in 127.0.0.0/8 (127.0.0.1)\n"
    "  --path PATH          /echo, or /broadcast in that mode\n"
    "  --connections N      100; idle: held open; handshake: opening at a time\n"
    "  --in-flight N        messages under way on each sending connection (1)\n"
    "  --senders N          broadcast: connections that send (1)\n"
    "  --size BYTES         of a message (32)\n"
    "  --payload KIND       text (ASCII), utf8 (no ASCII in it) or binary\n"
    "  --warmup SECONDS     before the measured window (0.5)\n"
    "  --seconds SECONDS    of the measured window (2)\n"
    "  --timeout SECONDS    to open a connection, and without progress (10)\n"
    "  --max-messages N     ends the window early\n"
    "  --server-pid PID     measure that process and its descendants\n"
    "  --verify             every message differs; compare every byte\n"
    "  --tls                wss, without verifying the certificate\n"
    "  --deflate            offer permessage-deflate, and send every message compressed\n"
    "  --seed N             of masks and payloads (1)\n"
    "  --features           say what this build can do (tls, deflate), and stop\n";

static _Noreturn void refuse(const char *what, const char *value)
{
    fprintf(stderr, "load: %s: %s\n\n%s", what, value, usage);
    exit(2);
}

static double number(const char *name, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        refuse(name, text);
    return value;
}

static enum payload_kind payload_kind(const char *text)
{
    if (strcmp(text, "text") == 0)
        return PAYLOAD_TEXT;
    if (strcmp(text, "utf8") == 0)
        return PAYLOAD_UTF8;
    if (strcmp(text, "binary") == 0)
        return PAYLOAD_BINARY;
    refuse("--payload", text);
}

/* This program can only ever load the machine it runs on: names are not
 * resolved, and every address outside 127.0.0.0/8 is refused. */
static struct in_addr loopback_only(const char *text)
{
    struct in_addr address;
    if (inet_pton(AF_INET, text, &address) != 1)
        refuse("--host must be a numeric IPv4 address", text);
    if (ntohl(address.s_addr) >> 24 != 127)
        refuse("--host must be in 127.0.0.0/8: load goes to this machine only", text);
    return address;
}

enum {
    OPT_HOST, OPT_PORT, OPT_PATH, OPT_MODE, OPT_CONNECTIONS, OPT_IN_FLIGHT, OPT_SENDERS,
    OPT_SIZE, OPT_PAYLOAD, OPT_WARMUP, OPT_SECONDS, OPT_TIMEOUT, OPT_MAX_MESSAGES,
    OPT_SERVER_PID, OPT_VERIFY, OPT_TLS, OPT_DEFLATE, OPT_SEED, OPT_FEATURES, OPT_HELP,
};

static const struct option names[] = {
    {"host", required_argument, NULL, OPT_HOST},
    {"port", required_argument, NULL, OPT_PORT},
    {"path", required_argument, NULL, OPT_PATH},
    {"mode", required_argument, NULL, OPT_MODE},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"in-flight", required_argument, NULL, OPT_IN_FLIGHT},
    {"senders", required_argument, NULL, OPT_SENDERS},
    {"size", required_argument, NULL, OPT_SIZE},
    {"payload", required_argument, NULL, OPT_PAYLOAD},
    {"warmup", required_argument, NULL, OPT_WARMUP},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"max-messages", required_argument, NULL, OPT_MAX_MESSAGES},
    {"server-pid", required_argument, NULL, OPT_SERVER_PID},
    {"verify", no_argument, NULL, OPT_VERIFY},
    {"tls", no_argument, NULL, OPT_TLS},
    {"deflate", no_argument, NULL, OPT_DEFLATE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"features", no_argument, NULL, OPT_FEATURES},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static void check(void)
{
    if (options.target.sin_port == 0)
        refuse("--port", "is needed");
    if (options.payload == PAYLOAD_UTF8 && options.size % 2)
        refuse("--size", "must be even for utf8, whose characters take two bytes");
    if (options.senders > options.connections)
        refuse("--senders", "must not exceed --connections");
    if (options.verify && options.senders > 1)
        refuse("--verify", "needs the one order that one sender gives");
    /* Every message in flight has a slot of its own in memory. */
    if ((double)options.in_flight * (double)options.size > 1e9)
        refuse("--in-flight", "times --size is over 1 GB");
#ifndef LOAD_ZLIB
    if (options.deflate)
        refuse("--deflate", "this build is without zlib: install zlib1g-dev and build again");
#endif
#ifndef LOAD_TLS
    if (options.tls)
        refuse("--tls", "this build is without TLS: install libssl-dev and build again");
#endif
}

void options_read(int argc, char **argv)
{
    options.target.sin_family = AF_INET;
    options.target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case OPT_HOST: options.target.sin_addr = loopback_only(optarg); break;
        case OPT_PORT: options.target.sin_port = htons((uint16_t)number("--port", optarg, 1, 65535)); break;
        case OPT_PATH: options.path = optarg; break;
        case OPT_MODE: options.mode = optarg; break;
        case OPT_CONNECTIONS: options.connections = (unsigned)number("--connections", optarg, 1, 1e6); break;
        case OPT_IN_FLIGHT: options.in_flight = (unsigned)number("--in-flight", optarg, 1, 1e5); break;
        case OPT_SENDERS: options.senders = (unsigned)number("--senders", optarg, 1, 1e6); break;
        case OPT_SIZE: options.size = (size_t)number("--size", optarg, 0, 1 << 28); break;
        case OPT_PAYLOAD: options.payload = payload_kind(optarg); break;
        case OPT_WARMUP: options.warmup = number("--warmup", optarg, 0, 600); break;
        case OPT_SECONDS: options.seconds = number("--seconds", optarg, 0.01, 3600); break;
        case OPT_TIMEOUT: options.timeout = number("--timeout", optarg, 0.1, 600); break;
        case OPT_MAX_MESSAGES: options.max_messages = (uint64_t)number("--max-messages", optarg, 1, 1e12); break;
        case OPT_SERVER_PID: options.server_pid = (pid_t)number("--server-pid", optarg, 1, 1 << 30); break;
        case OPT_VERIFY: options.verify = true; break;
        case OPT_TLS: options.tls = true; break;
        case OPT_DEFLATE: options.deflate = true; break;
        case OPT_SEED: options.seed = (uint64_t)number("--seed", optarg, 1, 1e15); break;
        case OPT_FEATURES: puts(features); exit(0);
        case OPT_HELP: fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind < argc)
        refuse("unexpected", argv[optind]);
    if (!options.path)
        options.path = strcmp(options.mode, "broadcast") == 0 ? "/broadcast" : "/echo";
    check();
}
