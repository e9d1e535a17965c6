/* permessage-deflate (RFC 7692), where this build has zlib. */
#ifndef LOAD_DEFLATE_H
#define LOAD_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Compresses a message by itself; returns its length, 0 where `room` is too
 * small. Its end may be followed by deflate_pad. */
size_t deflate_message(const uint8_t *data, size_t length, uint8_t *out, size_t room);

/* Makes a compressed message longer by blocks of nothing, of five bytes each. */
size_t deflate_pad(uint8_t *message, size_t length, unsigned blocks);

/* One connection's: what it has inflated stays known to it, whether the server
 * makes use of that or not. */
struct inflater;

struct inflater *inflater_new(void);
void inflater_free(struct inflater *);

/* Gives it bytes, the last ones of a message or not, until it wants none. */
void inflater_feed(struct inflater *, const uint8_t *data, size_t length, bool ends);

/* The next bytes that come out; 0 when there are no more, -1 for bad ones. */
long inflater_take(struct inflater *, uint8_t *out, size_t room);

#endif
