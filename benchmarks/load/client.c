#include "client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "deflate.h"
#include "options.h"
#include "payload.h"

enum {
    READ_SIZE = 256 * 1024,
    HEAD_LIMIT = 4096,
    OPENING_AT_A_TIME = 64, /* below every server's listen backlog */
    EVENTS_AT_A_TIME = 256,
};

struct load load;

static uint8_t input[READ_SIZE];
static uint8_t *shared_block;

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *must_allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory) {
        fprintf(stderr, "load: out of memory\n");
        exit(2);
    }
    return memory;
}

void load_init(const struct mode *mode, unsigned clients)
{
    load.mode = mode;
    load.count = 0;
    load.clients = must_allocate(clients, sizeof *load.clients);
    for (unsigned i = 0; i < clients; i++) {
        load.clients[i].id = i;
        load.clients[i].source = i;
        load.clients[i].io.fd = -1;
    }
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.now = load.progress = now_ns();
}

void load_fail(const char *format, ...)
{
    if (load.failed)
        return;
    load.failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(load.error, sizeof load.error, format, arguments);
    va_end(arguments);
}

static void watch(struct client *c, uint32_t events)
{
    if (c->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(load.epoll, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->io.fd, &event);
    c->events = events;
}

/* --- the outbound stream --- */

/* Without --verify all connections send the same frames, prebuilt once: as
 * many as are in flight, but with --deflate all that there are, so that no
 * compressor meets them again. With it each has its own, rebuilt for every
 * message: a slot is free again as soon as its message came back. */
static unsigned slots(void)
{
    unsigned variants = options.verify ? 0 : payload_variants();
    return variants > options.in_flight ? variants : options.in_flight;
}

static void prepare_block(struct client *c)
{
    size_t frame = payload_frame_length();
    c->queued_at = must_allocate(options.in_flight, sizeof *c->queued_at);
    if (options.verify) {
        c->block = must_allocate(options.in_flight, frame);
        return;
    }
    if (!shared_block) {
        shared_block = must_allocate(slots(), frame);
        for (unsigned slot = 0; slot < slots(); slot++)
            payload_write_frame(shared_block + slot * frame, 0, slot);
    }
    c->block = shared_block;
}

/* A control frame may go out between two frames, never inside one. */
static bool control_may_go(const struct client *c)
{
    return c->control_length &&
           (c->control_written || c->written % payload_frame_length() == 0);
}

static void flush(struct client *c)
{
    size_t block = payload_frame_length() * slots();
    while (control_may_go(c) || c->written < c->queued) {
        bool control = control_may_go(c);
        const uint8_t *from = c->control + c->control_written;
        size_t length = c->control_length - c->control_written;
        if (!control) {
            size_t at = c->written % block;
            from = c->block + at;
            length = c->queued - c->written < block - at ? c->queued - c->written : block - at;
        }
        ssize_t n = transport_write(&c->io, from, length);
        if (n == TRANSPORT_AGAIN) {
            watch(c, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) {
            if (!load.closing)
                load_fail("connection %u: lost while sending, after %llu messages: %s", c->id,
                          (unsigned long long)c->received, strerror(errno));
            return;
        }
        if (!control)
            c->written += (uint64_t)n;
        else if ((c->control_written += (uint8_t)n) == c->control_length)
            c->control_length = c->control_written = 0;
    }
    watch(c, EPOLLIN);
}

void client_send(struct client *c, unsigned messages)
{
    if (!c->block)
        prepare_block(c);
    size_t frame = payload_frame_length();
    uint64_t number = c->queued / frame;
    for (unsigned i = 0; i < messages; i++, number++) {
        size_t slot = number % options.in_flight;
        c->queued_at[slot] = load.now;
        if (options.verify)
            payload_write_frame(c->block + slot * frame, c->id, number);
    }
    c->queued += messages * frame;
    flush(c);
}

static void send_control(struct client *c, uint8_t opcode, const uint8_t *data, size_t length)
{
    if (c->control_length)
        return; /* one is waiting already: a later ping needs no second pong */
    c->control_length = (uint8_t)payload_write_control(c->control, opcode, data, length);
    flush(c);
}

/* --- what comes in --- */

static void take_piece(struct client *c, const struct frame_piece *piece)
{
    if (piece->opcode != payload_opcode()) {
        load_fail("connection %u: message %llu has opcode %u instead of %u", c->id,
                  (unsigned long long)c->received, piece->opcode, payload_opcode());
        return;
    }
    uint64_t end = piece->offset + piece->length;
    if (end > options.size || (piece->ends && end < options.size)) {
        load_fail("connection %u: message %llu is %s than the %zu bytes sent", c->id,
                  (unsigned long long)c->received, end > options.size ? "longer" : "shorter",
                  options.size);
        return;
    }
    if (options.verify) {
        const uint8_t *expected = payload_of(c->source, c->received) + piece->offset;
        if (memcmp(piece->data, expected, piece->length) != 0) {
            size_t i = 0;
            while (piece->data[i] == expected[i])
                i++;
            load_fail("connection %u: message %llu differs at byte %llu: 0x%02x instead of 0x%02x",
                      c->id, (unsigned long long)c->received,
                      (unsigned long long)piece->offset + i, piece->data[i], expected[i]);
            return;
        }
    }
    if (piece->ends) {
        c->received++;
        c->fresh++;
        load.messages++;
        if (load.mode->message)
            load.mode->message(c);
    }
}

/* Inflates a piece, and takes what comes out of it as pieces. */
static void take_compressed(struct client *c, const struct frame_piece *piece)
{
    static uint8_t output[64 * 1024];
    if (!c->inflater)
        c->inflater = inflater_new();
    inflater_feed(c->inflater, piece->data, piece->length, piece->ends);
    for (long length = 1; length > 0 && !load.failed; c->inflated += (uint64_t)length) {
        length = inflater_take(c->inflater, output, sizeof output);
        if (length < 0) {
            load_fail("connection %u: message %llu can't be inflated", c->id,
                      (unsigned long long)c->received);
            return;
        }
        struct frame_piece part = {output, (size_t)length, c->inflated, piece->opcode, false,
                                   length == 0 && piece->ends, NULL};
        take_piece(c, &part);
    }
    if (piece->ends)
        c->inflated = 0;
}

static void take_control(struct client *c, const struct frame_piece *piece)
{
    if (piece->opcode == 9) {
        send_control(c, 10, piece->data, piece->length);
    } else if (piece->opcode == 8 && !load.closing) {
        unsigned code = piece->length >= 2 ? (unsigned)piece->data[0] << 8 | piece->data[1] : 1005;
        int reason = piece->length > 2 ? (int)piece->length - 2 : 0;
        load_fail("connection %u: closed by the server after %llu messages: %u %.*s", c->id,
                  (unsigned long long)c->received, code, reason, (const char *)piece->data + 2);
    }
}

static void take_frames(struct client *c, const uint8_t *data, size_t length)
{
    struct frame_piece piece;
    c->fresh = 0;
    while (!load.failed) {
        switch (frames_next(&c->reader, &data, &length, &piece)) {
        case FRAME_PIECE: (piece.compressed ? take_compressed : take_piece)(c, &piece); break;
        case FRAME_CONTROL: take_control(c, &piece); break;
        case FRAME_ERROR: load_fail("connection %u: %s", c->id, piece.error); break;
        case FRAME_NONE:
            if (c->fresh && load.mode->read && !load.closing)
                load.mode->read(c);
            return;
        }
    }
}

/* --- opening --- */

/* The key of RFC 6455's example: the answer to it is known, so that checking
 * the handshake costs no SHA-1 here. */
static const char request_format[] =
    "GET %s HTTP/1.1\r\n"
    "Host: 127.0.0.1:%u\r\n"
    "Connection: Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36\r\n"
    "Upgrade: websocket\r\n"
    "Origin: http%s://127.0.0.1:%u\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "%s"
    "\r\n";
static const char offer[] = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
static const char accept_value[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

static void send_request(struct client *c)
{
    static char request[2048];
    static int length;
    if (!length) {
        unsigned port = ntohs(options.target.sin_port);
        length = snprintf(request, sizeof request, request_format, options.path, port,
                          options.tls ? "s" : "", port, options.deflate ? offer : "");
    }
    if (options.tls && !*load.tls)
        snprintf(load.tls, sizeof load.tls, "%s", transport_describe(&c->io));
    /* A new connection's send buffer is empty: the request fits in one write. */
    if (transport_write(&c->io, request, (size_t)length) != length) {
        load_fail("connection %u: lost while sending the upgrade request", c->id);
        return;
    }
    c->state = CLIENT_UPGRADING;
    watch(c, EPOLLIN);
}

static void finish_connect(struct client *c)
{
    bool wants_write;
    switch (transport_handshake(&c->io, &wants_write)) {
    case 1: send_request(c); break;
    case TRANSPORT_AGAIN: watch(c, wants_write ? EPOLLOUT : EPOLLIN); break;
    default:
        load_fail("connection %u: %s failed: %s", c->id,
                  options.tls ? "the TLS handshake" : "connecting", strerror(errno));
    }
}

static bool head_is_good(struct client *c)
{
    if (strncmp(c->head, "HTTP/1.1 101 ", 13) != 0)
        load_fail("connection %u: refused: %.*s", c->id, (int)strcspn(c->head, "\r"), c->head);
    else if (!strstr(c->head, accept_value))
        load_fail("connection %u: no right Sec-WebSocket-Accept in the answer", c->id);
    else if (options.deflate && !strcasestr(c->head, "extensions: permessage-deflate"))
        load_fail("connection %u: compression was offered and not agreed on", c->id);
    else if (!options.deflate && strcasestr(c->head, "\r\nsec-websocket-extensions:"))
        load_fail("connection %u: an extension was agreed that was not offered", c->id);
    return !load.failed;
}

/* Collects the response; whatever follows it are frames already. */
static void take_head(struct client *c, const uint8_t *data, size_t length)
{
    if (!c->head)
        c->head = must_allocate(1, HEAD_LIMIT + 1);
    size_t before = c->head_length;
    size_t take = length < HEAD_LIMIT - before ? length : HEAD_LIMIT - before;
    memcpy(c->head + before, data, take);
    c->head_length += (unsigned)take;
    c->head[c->head_length] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        if (c->head_length == HEAD_LIMIT)
            load_fail("connection %u: the answer's head is over %d bytes", c->id, HEAD_LIMIT);
        return;
    }
    size_t used = (size_t)(end + 4 - c->head) - before;
    if (!head_is_good(c))
        return;
    free(c->head);
    c->head = NULL;
    c->head_length = 0;
    c->state = CLIENT_OPEN;
    load.opening--;
    load.open++;
    if (load.mode->opened)
        load.mode->opened(c);
    if (c->state == CLIENT_OPEN && used < length)
        take_frames(c, data + used, length - used);
}

void client_open(struct client *c)
{
    memset(&c->reader, 0, sizeof c->reader);
    c->events = 0;
    c->began = load.now;
    c->received = c->queued = c->written = 0;
    if (!transport_connect(&c->io)) {
        load_fail("connection %u: connecting failed: %s", c->id, strerror(errno));
        return;
    }
    c->state = CLIENT_CONNECTING;
    load.opening++;
    watch(c, EPOLLOUT);
}

void client_drop(struct client *c)
{
    if (c->state == CLIENT_OPEN)
        load.open--;
    else if (c->state != CLIENT_IDLE)
        load.opening--;
    transport_close(&c->io); /* which takes it off epoll, too */
    free(c->head);
    c->head = NULL;
    c->head_length = 0;
    c->control_length = c->control_written = 0;
    inflater_free(c->inflater);
    c->inflater = NULL;
    c->inflated = 0;
    c->state = CLIENT_IDLE;
}

/* --- the loop --- */

static void lost(struct client *c)
{
    if (!load.closing)
        load_fail("connection %u: the server hung up %s after %llu messages", c->id,
                  c->state == CLIENT_OPEN ? "without a Close" : "during the handshake",
                  (unsigned long long)c->received);
    client_drop(c);
}

static void receive(struct client *c)
{
    do {
        ssize_t n = transport_read(&c->io, input, sizeof input);
        if (n == TRANSPORT_AGAIN)
            return;
        if (n <= 0) {
            lost(c);
            return;
        }
        load.now = load.progress = now_ns();
        if (c->state == CLIENT_OPEN)
            take_frames(c, input, (size_t)n);
        else
            take_head(c, input, (size_t)n);
    } while (!load.failed && c->state >= CLIENT_UPGRADING && transport_has_more(&c->io));
}

static void dispatch(struct client *c, uint32_t events)
{
    if (c->state == CLIENT_IDLE)
        return;
    if (c->state == CLIENT_CONNECTING) {
        finish_connect(c);
        return;
    }
    if (events & EPOLLOUT)
        flush(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !load.failed)
        receive(c);
}

static void check_opening_times(void)
{
    static uint64_t next;
    if (load.opening == 0 || load.now < next)
        return;
    next = load.now + 100000000;
    uint64_t limit = (uint64_t)(options.timeout * 1e9);
    for (unsigned i = 0; i < load.started; i++) {
        const struct client *c = &load.clients[i];
        if (c->state != CLIENT_IDLE && c->state != CLIENT_OPEN && load.now - c->began > limit) {
            load_fail("connection %u: not open after %g s", c->id, options.timeout);
            return;
        }
    }
}

static void turn(void)
{
    struct epoll_event events[EVENTS_AT_A_TIME];
    while (load.started < load.count && load.opening < OPENING_AT_A_TIME && !load.failed)
        client_open(&load.clients[load.started++]);
    int ready = epoll_wait(load.epoll, events, EVENTS_AT_A_TIME, 5);
    load.now = now_ns();
    for (int i = 0; i < ready && !load.failed; i++)
        dispatch(events[i].data.ptr, events[i].events);
    check_opening_times();
}

bool load_until(bool (*done)(void), double seconds, const char *what)
{
    uint64_t limit = load.now + (uint64_t)(seconds * 1e9);
    while (!load.failed) {
        if (done && done())
            return true;
        if (load.now >= limit) {
            if (what)
                load_fail("%s: not done after %g s", what, seconds);
            return !what;
        }
        turn();
    }
    return false;
}

static bool all_open(void)
{
    /* As long as connections keep opening, however slowly, it goes on. */
    return load.open == load.count;
}

bool load_open(unsigned count)
{
    load.count = count;
    return load_until(all_open, 30 + count * 0.01, "opening the connections");
}

static bool all_closed(void)
{
    return load.open == 0;
}

void load_close(void)
{
    static const uint8_t normal[2] = {1000 >> 8, 1000 & 0xFF};
    load.closing = true;
    for (unsigned i = 0; i < load.started && !load.failed; i++)
        if (load.clients[i].state == CLIENT_OPEN)
            send_control(&load.clients[i], 8, normal, sizeof normal);
    load_until(all_closed, 2, NULL);
    for (unsigned i = 0; i < load.started; i++)
        if (load.clients[i].state != CLIENT_IDLE)
            client_drop(&load.clients[i]);
}
