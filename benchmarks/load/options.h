/* What the command line asked for. Read once in main(), never changed after. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum payload_kind { PAYLOAD_TEXT, PAYLOAD_UTF8, PAYLOAD_BINARY };

struct options {
    const char *mode;
    const char *path;
    struct sockaddr_in target;
    unsigned connections;
    unsigned in_flight;       /* messages under way on a connection at a time */
    unsigned senders;         /* broadcast: how many of the connections send */
    size_t size;              /* bytes of a message */
    enum payload_kind payload;
    double warmup, seconds;
    double timeout;           /* to open a connection, and without any progress */
    uint64_t max_messages;    /* ends the window early; a bound, not a goal */
    pid_t server_pid;         /* 0: no figures of the server */
    uint64_t seed;
    bool verify;
    bool tls;
    bool deflate;             /* offer permessage-deflate, and send compressed */
};

extern struct options options;

void options_read(int argc, char **argv);

#endif
