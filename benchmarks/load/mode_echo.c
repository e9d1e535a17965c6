/* Each connection keeps in_flight messages under way: what came back is sent
 * again, all that one read brought in one write. */
#include "modes.h"
#include "options.h"
#include "payload.h"

static bool draining;

static void message(struct client *c)
{
    window_add(load.now - c->queued_at[(c->received - 1) % options.in_flight]);
}

static void after_read(struct client *c)
{
    if (!draining)
        client_send(c, c->fresh);
}

static bool all_came_back(void)
{
    uint64_t queued = 0;
    for (unsigned i = 0; i < load.count; i++)
        queued += load.clients[i].queued;
    return load.messages == queued / payload_frame_length();
}

static void run(void)
{
    if (!load_open(options.connections))
        return;
    for (unsigned i = 0; i < load.count; i++)
        client_send(&load.clients[i], options.in_flight);
    if (!window_run())
        return;
    draining = true;
    load_until(all_came_back, options.timeout, "waiting for the last echoes");
}

const struct mode mode_echo = {
    .name = "echo", .run = run, .message = message, .read = after_read};
