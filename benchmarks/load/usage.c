#include "usage.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static FILE *open_proc(pid_t pid, const char *rest)
{
    char path[320];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, rest);
    return fopen(path, "r");
}

/* A process's CPU clock counts nanoseconds of all its threads, ended ones too;
 * /proc/PID/stat would count ticks of 10 ms. */
static bool add_cpu(pid_t pid, struct usage *usage)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return false;
    usage->cpu_ns += (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    return true;
}

/* smaps_rollup adds the pages up; statm's sums lag behind on many cores. */
static void add_memory(pid_t pid, struct usage *usage)
{
    FILE *file = open_proc(pid, "smaps_rollup");
    if (!file)
        return;
    char line[256];
    unsigned long kib;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Rss: %lu kB", &kib) == 1)
            usage->rss_kib += kib;
    fclose(file);
}

static void add_tree(pid_t pid, bool with_memory, struct usage *usage, int depth);

static void add_thread(pid_t pid, const char *thread, bool with_memory, struct usage *usage,
                       int depth)
{
    char rest[300];
    unsigned long long ran, waited;
    snprintf(rest, sizeof rest, "task/%.32s/schedstat", thread);
    FILE *file = open_proc(pid, rest);
    if (file) {
        if (fscanf(file, "%llu %llu", &ran, &waited) == 2)
            usage->waited_ns += waited;
        fclose(file);
    }
    snprintf(rest, sizeof rest, "task/%.32s/children", thread);
    file = open_proc(pid, rest);
    if (file) {
        for (int child; fscanf(file, "%d", &child) == 1;)
            add_tree((pid_t)child, with_memory, usage, depth + 1);
        fclose(file);
    }
}

static void add_tree(pid_t pid, bool with_memory, struct usage *usage, int depth)
{
    if (depth > 8 || !add_cpu(pid, usage))
        return;
    usage->processes++;
    if (depth == 0)
        usage->alive = true;
    if (with_memory)
        add_memory(pid, usage);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *threads = opendir(path);
    if (!threads)
        return;
    for (struct dirent *entry; (entry = readdir(threads));)
        if (isdigit((unsigned char)entry->d_name[0]))
            add_thread(pid, entry->d_name, with_memory, usage, depth);
    closedir(threads);
}

void usage_read(pid_t root, bool with_memory, struct usage *usage)
{
    memset(usage, 0, sizeof *usage);
    if (root)
        add_tree(root, with_memory, usage, 0);
}
