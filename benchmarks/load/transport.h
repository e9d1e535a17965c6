/* A non-blocking byte stream to the server: TCP, or TLS over it. */
#ifndef LOAD_TRANSPORT_H
#define LOAD_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct transport {
    int fd;
    void *tls; /* SSL, or NULL */
};

enum { TRANSPORT_AGAIN = -1, TRANSPORT_LOST = -2 };

void transport_init(void);

/* Starts to connect; false says so in errno. */
bool transport_connect(struct transport *t);

/* Once connected: 1 done, TRANSPORT_AGAIN or TRANSPORT_LOST. `wants_write`
 * says what to wait for. Plain TCP is done at once. */
int transport_handshake(struct transport *t, bool *wants_write);

/* Bytes moved, 0 at the end of the stream, TRANSPORT_AGAIN or TRANSPORT_LOST. */
ssize_t transport_read(struct transport *t, void *to, size_t length);
ssize_t transport_write(struct transport *t, const void *from, size_t length);

/* Bytes already taken from the socket wait inside, where epoll can't see them. */
bool transport_has_more(const struct transport *t);

void transport_close(struct transport *t);

/* "TLSv1.3 TLS_AES_256_GCM_SHA384", or "" for plain TCP. */
const char *transport_describe(const struct transport *t);

#endif
