/* Connect, upgrade, close, again and again. The end is the end of the TCP
 * stream, without a closing handshake: what is measured is the opening. */
#include "modes.h"
#include "options.h"

static bool draining;

static void opened(struct client *c)
{
    window_add(load.now - c->began);
    client_drop(c);
    if (!draining)
        client_open(c);
}

static bool all_done(void)
{
    return load.opening == 0;
}

static void run(void)
{
    load.count = options.connections;
    if (!window_run())
        return;
    draining = true;
    load_until(all_done, options.timeout, "waiting for the last handshakes");
}

const struct mode mode_handshake = {
    .name = "handshake", .run = run, .opened = opened};
