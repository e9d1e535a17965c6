#include "transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.h"

#ifdef LOAD_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *context;

static void tls_init(void)
{
    context = SSL_CTX_new(TLS_client_method());
    if (!context) {
        fprintf(stderr, "load: OpenSSL does not start\n");
        exit(2);
    }
    /* The certificate is the benchmark's own; a write may be repeated from
     * another place and may move a part, as send() does. */
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static ssize_t tls_result(struct transport *t, int result)
{
    switch (SSL_get_error(t->tls, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return TRANSPORT_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        ERR_clear_error();
        return TRANSPORT_LOST;
    }
}
#endif

void transport_init(void)
{
#ifdef LOAD_TLS
    if (options.tls)
        tls_init();
#endif
}

/* A port serves each source address with its own 28,000 numbers, and a closed
 * connection keeps one for a while: 250 addresses in turn never run out. */
static bool bind_to_next_source(int fd)
{
    static unsigned turn;
    int on = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn++ % 250);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, (struct sockaddr *)&source, sizeof source) == 0;
}

bool transport_connect(struct transport *t)
{
    int on = 1;
    t->tls = NULL;
    t->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (t->fd < 0)
        return false;
    setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind_to_next_source(t->fd) &&
        (connect(t->fd, (struct sockaddr *)&options.target, sizeof options.target) == 0 ||
         errno == EINPROGRESS))
        return true;
    int error = errno;
    transport_close(t);
    errno = error;
    return false;
}

int transport_handshake(struct transport *t, bool *wants_write)
{
    *wants_write = false;
#ifdef LOAD_TLS
    if (options.tls) {
        if (!t->tls) {
            t->tls = SSL_new(context);
            SSL_set_fd(t->tls, t->fd);
        }
        int result = SSL_connect(t->tls);
        if (result == 1)
            return 1;
        *wants_write = SSL_get_error(t->tls, result) == SSL_ERROR_WANT_WRITE;
        return tls_result(t, result) == TRANSPORT_AGAIN ? TRANSPORT_AGAIN : TRANSPORT_LOST;
    }
#endif
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    return error ? TRANSPORT_LOST : 1;
}

static ssize_t plain_result(ssize_t result)
{
    if (result >= 0)
        return result;
    return errno == EAGAIN || errno == EINTR ? TRANSPORT_AGAIN : TRANSPORT_LOST;
}

ssize_t transport_read(struct transport *t, void *to, size_t length)
{
#ifdef LOAD_TLS
    if (t->tls) {
        int result = SSL_read(t->tls, to, length > 1 << 30 ? 1 << 30 : (int)length);
        return result > 0 ? result : tls_result(t, result);
    }
#endif
    return plain_result(recv(t->fd, to, length, 0));
}

ssize_t transport_write(struct transport *t, const void *from, size_t length)
{
#ifdef LOAD_TLS
    if (t->tls) {
        int result = SSL_write(t->tls, from, length > 1 << 30 ? 1 << 30 : (int)length);
        return result > 0 ? result : tls_result(t, result);
    }
#endif
    return plain_result(send(t->fd, from, length, MSG_NOSIGNAL));
}

bool transport_has_more(const struct transport *t)
{
#ifdef LOAD_TLS
    return t->tls && SSL_pending(t->tls) > 0;
#else
    (void)t;
    return false;
#endif
}

void transport_close(struct transport *t)
{
#ifdef LOAD_TLS
    if (t->tls) {
        SSL_shutdown(t->tls); /* one way: says goodbye, waits for nothing */
        ERR_clear_error();
        SSL_free(t->tls);
        t->tls = NULL;
    }
#endif
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}

const char *transport_describe(const struct transport *t)
{
#ifdef LOAD_TLS
    static char text[96];
    if (t->tls) {
        snprintf(text, sizeof text, "%s %s", SSL_get_version(t->tls), SSL_get_cipher_name(t->tls));
        return text;
    }
#endif
    (void)t;
    return "";
}
