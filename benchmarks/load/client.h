/* The WebSocket clients and the loop that drives them.
 *
 * A mode (mode_*.c) opens clients, queues messages on them and is told of what
 * comes back; everything of sockets and frames stays here. The first thing
 * that goes wrong ends the run: figures of a run with a failure mean nothing. */
#ifndef LOAD_CLIENT_H
#define LOAD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "frames.h"
#include "transport.h"

enum client_state { CLIENT_IDLE, CLIENT_CONNECTING, CLIENT_UPGRADING, CLIENT_OPEN };

struct client {
    struct transport io;
    enum client_state state;
    uint32_t id;
    uint32_t source;          /* whose messages it expects: its own, or the sender's */
    uint32_t events;          /* what epoll watches */
    uint64_t began;           /* to open, ns */
    char *head;               /* the response so far, until it is complete */
    unsigned head_length;
    struct frame_reader reader;
    struct inflater *inflater; /* NULL until something compressed came */
    uint64_t inflated;        /* bytes of the message that is being inflated */
    uint64_t received;        /* whole messages, ever */
    unsigned fresh;           /* of those, in the read that is being handled */

    /* The outbound stream: message n lies in slot n % in_flight of `block`. */
    uint8_t *block;
    uint64_t queued, written; /* bytes of the stream */
    uint64_t *queued_at;      /* ns, by slot */
    uint8_t control[131], control_length, control_written;
};

struct mode {
    const char *name;
    bool silent;                       /* nothing comes in while it is measured */
    void (*run)(void);
    void (*opened)(struct client *);   /* may be NULL, as all of these */
    void (*message)(struct client *);  /* a whole message came, as expected */
    void (*read)(struct client *);     /* everything one read brought is handled */
};

struct load {
    const struct mode *mode;
    int epoll;
    struct client *clients;
    unsigned count;           /* clients to open */
    unsigned started, opening, open;
    uint64_t now;             /* ns; refreshed before each read */
    uint64_t progress;        /* when something last came in */
    uint64_t messages;        /* every whole message, ever */
    bool closing;             /* the run is over: closed connections are no news */
    bool failed;
    char error[400];
    char tls[96];             /* version and cipher, once known */
};

extern struct load load;

void load_init(const struct mode *mode, unsigned clients);

/* Drives everything until done() says so; false when the run has failed. The
 * time limit is a failure only if `what`, which it names, is given. */
bool load_until(bool (*done)(void), double seconds, const char *what);

/* Opens clients until `count` of them are. */
bool load_open(unsigned count);

/* A closing handshake on every connection, for at most two seconds. */
void load_close(void);

/* Ends the run; the first reason is kept. */
__attribute__((format(printf, 1, 2))) void load_fail(const char *format, ...);

void client_open(struct client *client);
void client_drop(struct client *client);

/* Queues the next `messages` of the client's stream and writes what it can. */
void client_send(struct client *client, unsigned messages);

uint64_t now_ns(void);

#endif
