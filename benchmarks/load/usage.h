/* What a server has used so far: the processor time and memory of its whole
 * process tree, and how long it stood ready to run without a processor. */
#ifndef LOAD_USAGE_H
#define LOAD_USAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct usage {
    bool alive;              /* the process at the root of the tree */
    uint64_t cpu_ns;         /* user and system, all threads */
    uint64_t waited_ns;      /* runnable, but others had the core: the machine's noise */
    uint64_t rss_kib;
    unsigned processes;
};

void usage_read(pid_t root, bool with_memory, struct usage *usage);

#endif
