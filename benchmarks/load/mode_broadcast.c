/* Every connection receives what any sends. The senders send in_flight
 * messages in one write, and the next ones when all of these have reached
 * everybody: so that a server has several messages to deliver in one turn. */
#include "modes.h"
#include "options.h"

#define JOIN_SECONDS 0.5

static bool draining;
static uint64_t burst_began, awaited;

static void send_burst(void)
{
    awaited = (uint64_t)options.senders * options.in_flight * options.connections;
    burst_began = load.now;
    for (unsigned i = 0; i < options.senders && !load.failed; i++)
        client_send(&load.clients[i], options.in_flight);
}

static void message(struct client *c)
{
    (void)c;
    window_add(load.now - burst_began);
    awaited--;
}

static void after_read(struct client *c)
{
    (void)c;
    if (awaited == 0 && !draining)
        send_burst();
}

static bool all_delivered(void)
{
    return awaited == 0;
}

static void run(void)
{
    for (unsigned i = 0; i < options.connections; i++)
        load.clients[i].source = 0;
    if (!load_open(options.connections))
        return;
    /* The answer to the upgrade may be sent before the server's application
     * has joined the connection to the others. */
    load_until(NULL, JOIN_SECONDS, NULL);
    send_burst();
    if (!window_run())
        return;
    draining = true;
    load_until(all_delivered, options.timeout, "waiting for the last deliveries");
}

const struct mode mode_broadcast = {
    .name = "broadcast", .run = run, .message = message, .read = after_read};
