/* The limit: what a WebSocket echo costs in C on one epoll, with nothing
 * between the kernel and the frames. It trusts its client (no UTF-8 check, no
 * Origin, no timeouts) and knows two paths, /echo and /broadcast.
 *
 * One read, then all its complete frames are turned into replies where they
 * lie (a reply's header is shorter than the request's), then one write. What
 * a turn of the loop broadcasts leaves in one write for each receiver.
 *
 * With --work NS it spends so many nanoseconds more on each read: what a
 * server costs that does more than nothing, and else does the same. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "accept_key.h"

enum { READ_SIZE = 256 * 1024, EVENTS_AT_A_TIME = 512 };

struct connection {
    int fd;
    bool upgraded, broadcasts, closing, waits_to_write;
    unsigned room_index;
    uint8_t *in;              /* an incomplete frame or request, kept for the next read */
    size_t in_length, in_size;
    uint8_t *out;             /* what the socket did not take yet: [out_at, out_length) */
    size_t out_at, out_length, out_size;
};

static int epoll;
static long work; /* nanoseconds a read */
static uint8_t input[READ_SIZE];
static struct connection **room;
static unsigned room_count, room_size;
static uint8_t *said;         /* frames to broadcast at the end of the turn */
static size_t said_length, said_size;

static void grow(uint8_t **buffer, size_t *size, size_t needed)
{
    if (needed <= *size)
        return;
    *size = needed < 4096 ? 4096 : needed;
    *buffer = realloc(*buffer, *size);
    if (!*buffer)
        abort();
}

static void append(uint8_t **buffer, size_t *length, size_t *size, const void *data, size_t n)
{
    if (*length + n > *size)
        grow(buffer, size, 2 * (*length + n));
    memcpy(*buffer + *length, data, n);
    *length += n;
}

/* --- writing --- */

/* While a peer does not read, nothing more is read from it. */
static void watch(struct connection *c, bool waits_to_write)
{
    if (c->waits_to_write == waits_to_write)
        return;
    c->waits_to_write = waits_to_write;
    struct epoll_event event = {.events = waits_to_write ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* A large reply lies in the connection's own input buffer: instead of copying
 * what is left of it, the input and output buffers change places. */
static void hand_over(struct connection *c, const uint8_t *data, size_t length)
{
    uint8_t *buffer = c->in;
    size_t size = c->in_size;
    c->in = c->out;
    c->in_size = c->out_size;
    c->out = buffer;
    c->out_size = size;
    c->out_at = (size_t)(data - buffer);
    c->out_length = c->out_at + length;
}

static void write_out(struct connection *c, const uint8_t *data, size_t length)
{
    if (c->out_length == 0) {
        ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            c->closing = true;
            return;
        }
        size_t done = n < 0 ? 0 : (size_t)n;
        data += done;
        length -= done;
    }
    if (length == 0)
        return;
    if (c->out_length == 0 && data >= c->in && data < c->in + c->in_size)
        hand_over(c, data, length);
    else
        append(&c->out, &c->out_length, &c->out_size, data, length);
    watch(c, true);
}

static void write_rest(struct connection *c)
{
    ssize_t n = send(c->fd, c->out + c->out_at, c->out_length - c->out_at, MSG_NOSIGNAL);
    if (n < 0) {
        c->closing = errno != EAGAIN;
        return;
    }
    c->out_at += (size_t)n;
    if (c->out_at == c->out_length) {
        c->out_at = c->out_length = 0;
        watch(c, false);
    }
}

static void flush_broadcast(void)
{
    for (unsigned i = 0; said_length && i < room_count; i++)
        write_out(room[i], said, said_length);
    said_length = 0;
}

/* --- the room --- */

static void join(struct connection *c)
{
    if (room_count == room_size) {
        room_size = room_size ? 2 * room_size : 64;
        room = realloc(room, room_size * sizeof *room);
        if (!room)
            abort();
    }
    c->room_index = room_count;
    room[room_count++] = c;
}

static void leave(struct connection *c)
{
    room[c->room_index] = room[--room_count];
    room[c->room_index]->room_index = c->room_index;
}

/* --- the upgrade --- */

/* Returns the bytes used, 0 if the request is incomplete. */
static size_t upgrade(struct connection *c, uint8_t *data, size_t length)
{
    char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    end[2] = 0;
    char *key = strcasestr((char *)data, "\r\nSec-WebSocket-Key:");
    if (!key) {
        static const char refusal[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        write_out(c, (const uint8_t *)refusal, sizeof refusal - 1);
        c->closing = true;
        return length;
    }
    key += strlen("\r\nSec-WebSocket-Key:");
    key += strspn(key, " ");
    char answer[256], accept[29];
    accept_key(key, strcspn(key, " \r"), accept);
    int n = snprintf(answer, sizeof answer,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    c->upgraded = true;
    c->broadcasts = strncmp((char *)data, "GET /broadcast ", 15) == 0;
    if (c->broadcasts)
        join(c);
    write_out(c, (const uint8_t *)answer, (size_t)n);
    return (size_t)((uint8_t *)end + 4 - data);
}

/* --- frames --- */

struct frame { size_t header, payload; }; /* header with its mask */

/* False: even the header is incomplete. */
static bool frame_at(const uint8_t *data, size_t length, struct frame *f)
{
    if (length < 2)
        return false;
    f->payload = data[1] & 0x7F;
    size_t extra = f->payload == 127 ? 8 : f->payload == 126 ? 2 : 0;
    f->header = 6 + extra;
    if (length < f->header)
        return false;
    if (extra)
        f->payload = 0;
    for (size_t i = 0; i < extra; i++)
        f->payload = f->payload << 8 | data[2 + i];
    return true;
}

/* Unmasks towards the front: `to` is below `from` and may overlap it. */
static void unmask(uint8_t *to, const uint8_t *from, size_t length, const uint8_t *mask)
{
    uint32_t narrow;
    memcpy(&narrow, mask, 4);
    uint64_t wide = (uint64_t)narrow << 32 | narrow, part;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&part, from + i, 8);
        part ^= wide;
        memcpy(to + i, &part, 8);
    }
    for (; i < length; i++)
        to[i] = from[i] ^ (uint8_t)(wide >> 8 * (i % 8));
}

/* Writes the reply to the frame at `data` to `to`, which is not above it. */
static size_t reply_to(uint8_t *to, const uint8_t *data, const struct frame *f)
{
    uint8_t mask[4];
    size_t header = f->header - 4;
    memcpy(mask, data + header, 4);
    memmove(to, data, header);
    to[1] &= 0x7F;
    if ((to[0] & 0x0F) == 9)
        to[0] = 0x8A;         /* a ping's reply is its pong */
    unmask(to + header, data + f->header, f->payload, mask);
    return header + f->payload;
}

/* Answers all complete frames; returns the bytes used. A frame's reply is
 * sent from where the frame lay. */
static size_t answer(struct connection *c, uint8_t *data, size_t length)
{
    struct frame f;
    size_t used = 0, replies = 0;
    while (!c->closing && frame_at(data + used, length - used, &f) &&
           length - used >= f.header + f.payload) {
        unsigned opcode = data[used] & 0x0F;
        size_t n = reply_to(data + replies, data + used, &f);
        used += f.header + f.payload;
        if (opcode == 10)
            continue;
        if (c->broadcasts && opcode < 8)
            append(&said, &said_length, &said_size, data + replies, n);
        else
            replies += n;
        c->closing = opcode == 8;
    }
    if (replies)
        write_out(c, data, replies);
    return used;
}

/* --- the loop --- */

static void end(struct connection *c)
{
    if (c->broadcasts)
        leave(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

/* An incomplete frame waits in the connection's own buffer, made as large as
 * the frame will be, and the next read goes there. */
static void keep_rest(struct connection *c, const uint8_t *rest, size_t length)
{
    struct frame f;
    size_t needed = length + 4096;
    if (c->upgraded && frame_at(rest, length, &f) && f.header + f.payload > needed)
        needed = f.header + f.payload;
    if (rest >= c->in && rest < c->in + c->in_size) {
        memmove(c->in, rest, length);
        grow(&c->in, &c->in_size, needed);
    } else {
        grow(&c->in, &c->in_size, needed);
        memcpy(c->in, rest, length);
    }
    c->in_length = length;
}

static void do_work(void)
{
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < work);
}

static void read_in(struct connection *c)
{
    if (work)
        do_work();
    bool partial = c->in_length > 0;
    uint8_t *data = partial ? c->in : input;
    size_t room_left = (partial ? c->in_size : sizeof input) - c->in_length;
    ssize_t n = recv(c->fd, data + c->in_length, room_left, 0);
    if (n <= 0) {
        c->closing = n == 0 || errno != EAGAIN;
        return;
    }
    size_t length = c->in_length + (size_t)n, used = 0;
    c->in_length = 0;
    if (!c->upgraded)
        used = upgrade(c, data, length);
    if (c->upgraded)
        used += answer(c, data + used, length - used);
    if (used < length && !c->closing)
        keep_rest(c, data + used, length - used);
}

static void accept_all(int listener)
{
    int on = 1;
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            abort();
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(uint16_t port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0) {
        perror("c_epoll");
        exit(1);
    }
    return fd;
}

/* The port. */
static uint16_t read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'}, {"work", required_argument, NULL, 'w'}, {0}};
    int port = 0, option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) == 'p' || option == 'w') {
        if (option == 'p')
            port = atoi(optarg);
        else
            work = atol(optarg);
    }
    if (port <= 0 || port > 65535 || work < 0 || option != -1) {
        fprintf(stderr, "usage: c_epoll --port N [--work NS]\n");
        exit(2);
    }
    return (uint16_t)port;
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int listener = listen_on(read_options(argc, argv));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS_AT_A_TIME] = {{.events = EPOLLIN, .data.ptr = NULL}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &events[0]);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_AT_A_TIME, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (events[i].events & EPOLLOUT)
                write_rest(c);
            else
                read_in(c);
            if (c->closing)
                end(c);
        }
        flush_broadcast();
    }
}
