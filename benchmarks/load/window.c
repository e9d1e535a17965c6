#include "window.h"

#include <stdio.h>
#include <time.h>

#include "client.h"
#include "options.h"

struct window window;

static uint64_t own_cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t stalled_after; /* ns without anything coming in */

/* Also the end of a server that died, or of one that lost a message. */
static bool enough(void)
{
    if (window.open && window.count >= options.max_messages)
        return true;
    if (!load.mode->silent && load.now - load.progress > stalled_after)
        load_fail("nothing came for %g s; %llu messages until then", options.timeout,
                  (unsigned long long)load.messages);
    return false;
}

bool window_run(void)
{
    stalled_after = (uint64_t)(options.timeout * 1e9);
    load.progress = load.now;
    if (!load_until(enough, options.warmup, NULL))
        return false;
    histogram_clear(&window.latency);
    window.count = 0;
    usage_read(options.server_pid, load.mode->silent, &window.before);
    window.own_cpu_began = own_cpu();
    window.began = now_ns();
    window.open = true;
    bool good = load_until(enough, options.seconds, NULL);
    window.open = false;
    window.ended = now_ns();
    window.own_cpu_ended = own_cpu();
    usage_read(options.server_pid, load.mode->silent, &window.after);
    if (good && options.server_pid && !window.after.alive)
        load_fail("the server's process %d is gone", (int)options.server_pid);
    if (good && window.count == 0 && !load.mode->silent)
        load_fail("nothing came back within the window of %g s", options.seconds);
    return !load.failed;
}

static void print_text(const char *name, const char *text)
{
    printf("\"%s\": \"", name);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c > 0x7E)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    printf("\"");
}

static void print_latency(void)
{
    static const struct { const char *name; double q; } quantiles[] = {
        {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    printf(", \"latency_us\": {");
    for (unsigned i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        printf("\"%s\": %.1f, ", quantiles[i].name,
               (double)histogram_quantile(&window.latency, quantiles[i].q) / 1e3);
    printf("\"max\": %.1f}", (double)window.latency.max / 1e3);
}

static void print_server(double ns)
{
    double cpu = (double)(window.after.cpu_ns - window.before.cpu_ns);
    /* A thread that ended meanwhile has taken its share of the sum along. */
    uint64_t before = window.before.waited_ns, after = window.after.waited_ns;
    double waited = after > before ? (double)(after - before) : 0;
    printf(", \"server\": {\"busy\": %.4f, \"waited\": %.4f, \"processes\": %u",
           cpu / ns, waited / ns, window.after.processes);
    if (window.count)
        printf(", \"cpu_us\": %.4f", cpu / 1e3 / (double)window.count);
    printf("}");
}

void window_print(const struct idle_result *result)
{
    double ns = window.ended > window.began ? (double)(window.ended - window.began) : 1;
    printf("{\"ok\": %s, ", load.failed ? "false" : "true");
    print_text("error", load.error);
    printf(", ");
    print_text("mode", load.mode->name);
    printf(", ");
    print_text("tls", load.tls);
    printf(", \"verified\": %s, \"connections\": %u, \"in_flight\": %u, \"size\": %zu",
           options.verify ? "true" : "false", options.connections, options.in_flight,
           options.size);
    printf(", \"seconds\": %.4f, \"count\": %llu, \"per_second\": %.1f", ns / 1e9,
           (unsigned long long)window.count, (double)window.count / ns * 1e9);
    printf(", \"generator_busy\": %.4f",
           (double)(window.own_cpu_ended - window.own_cpu_began) / ns);
    if (window.latency.count)
        print_latency();
    if (options.server_pid && window.after.alive)
        print_server(ns);
    if (result->measured)
        printf(", \"idle\": {\"rss_kib_per_connection\": %.3f, \"asked\": %u, \"answered\": %u}",
               result->rss_kib_per_connection, result->asked, result->answered);
    printf("}\n");
}
