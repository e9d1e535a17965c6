/* Many connections that do nothing: what does each cost? */
#include "modes.h"
#include "options.h"

/* The first connections make the server load and allocate what it does once;
 * they are not counted. */
enum { FIRST = 20, ASK = 100 };

struct idle_result idle_result;

static bool all_answered(void)
{
    return load.messages == idle_result.asked;
}

/* One echo on connections spread evenly over those below `count`. */
static bool ask(unsigned count, unsigned asks)
{
    uint64_t before = load.messages;
    idle_result.asked = (unsigned)before + asks;
    for (unsigned i = 0; i < asks && !load.failed; i++)
        client_send(&load.clients[(uint64_t)i * count / asks], 1);
    bool good = load_until(all_answered, options.timeout, "an echo on an idle connection");
    idle_result.asked = asks;
    idle_result.answered = (unsigned)(load.messages - before);
    return good;
}

static void run(void)
{
    struct usage base;
    if (!load_open(FIRST) || !ask(FIRST, FIRST))
        return;
    load_until(NULL, 0.3, NULL);
    usage_read(options.server_pid, true, &base);
    if (!load_open(FIRST + options.connections) || !window_run())
        return;
    idle_result.rss_kib_per_connection =
        ((double)window.after.rss_kib - (double)base.rss_kib) / options.connections;
    unsigned asks = options.connections < ASK ? options.connections : ASK;
    idle_result.measured = ask(load.count, asks) && options.server_pid;
}

const struct mode mode_idle = {.name = "idle", .silent = true, .run = run};
