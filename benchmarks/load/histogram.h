/* A histogram of nanoseconds with log-linear buckets: 64 for each power of two,
 * so that any quantile is known to 1.6 % at a fixed cost per value. */
#ifndef LOAD_HISTOGRAM_H
#define LOAD_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_SUB = 64, HISTOGRAM_BUCKETS = HISTOGRAM_SUB * 59 };

struct histogram {
    uint64_t count, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    unsigned bucket = (unsigned)value;
    if (value >= HISTOGRAM_SUB) {
        unsigned shift = 57 - (unsigned)__builtin_clzll(value); /* leaves 7 significant bits */
        bucket = shift * HISTOGRAM_SUB + (unsigned)(value >> shift);
    }
    h->buckets[bucket]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

void histogram_clear(struct histogram *h);
uint64_t histogram_quantile(const struct histogram *h, double q);

#endif
