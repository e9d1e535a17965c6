/* The measured window: everything between begin and end, and nothing else. */
#ifndef LOAD_WINDOW_H
#define LOAD_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "histogram.h"
#include "usage.h"

struct window {
    bool open;
    uint64_t count;           /* messages, deliveries or handshakes */
    struct histogram latency; /* ns */
    struct usage before, after;
    uint64_t began, ended;
    uint64_t own_cpu_began, own_cpu_ended;
};

extern struct window window;

/* Lets the load run for options.warmup, then measures for options.seconds. */
bool window_run(void);

static inline void window_add(uint64_t ns)
{
    if (window.open) {
        window.count++;
        histogram_add(&window.latency, ns);
    }
}

/* The result of the run as one line of JSON. `idle` is filled in by that mode. */
struct idle_result {
    bool measured;
    double rss_kib_per_connection;
    unsigned asked, answered;
};
void window_print(const struct idle_result *idle);

#endif
