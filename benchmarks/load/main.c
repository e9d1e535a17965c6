/* load: a load generator for WebSocket servers on this machine. One thread,
 * one epoll; see --help for what it does and README.md for what it measures. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "modes.h"
#include "options.h"
#include "payload.h"

static const struct mode *const modes[] = {&mode_echo, &mode_broadcast, &mode_handshake, &mode_idle};

static const struct mode *find_mode(const char *name)
{
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i]->name, name) == 0)
            return modes[i];
    fprintf(stderr, "load: no such mode: %s\n", name);
    exit(2);
}

/* A descriptor for each connection: the hard limit is raised where that is allowed. */
static void raise_descriptor_limit(unsigned connections)
{
    struct rlimit limit;
    rlim_t wanted = connections + 64;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted;
    if (limit.rlim_max < wanted)
        limit.rlim_max = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        perror("load: too few file descriptors are allowed for this many connections");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    options_read(argc, argv);
    const struct mode *mode = find_mode(options.mode);
    unsigned clients = options.connections + 64; /* idle opens a few more */
    raise_descriptor_limit(clients);
    signal(SIGPIPE, SIG_IGN);
    /* Every wait in here has a limit of its own; this ends the program if one is wrong. */
    alarm((unsigned)(options.warmup + options.seconds + 4 * options.timeout + 120 +
                     options.connections * 0.02));
    payload_init();
    transport_init();
    load_init(mode, clients);
    mode->run();
    load_close();
    window_print(&idle_result);
    return load.failed ? 1 : 0;
}
