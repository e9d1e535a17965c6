#include "deflate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef LOAD_ZLIB
#include <zlib.h>

static const uint8_t tail[4] = {0x00, 0x00, 0xFF, 0xFF};

size_t deflate_message(const uint8_t *data, size_t length, uint8_t *out, size_t room)
{
    z_stream stream = {0};
    if (deflateInit2(&stream, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    stream.next_in = (Bytef *)data;
    stream.avail_in = (uInt)length;
    stream.next_out = out;
    stream.avail_out = (uInt)room;
    bool done = deflate(&stream, Z_SYNC_FLUSH) == Z_OK && stream.avail_out > 0;
    size_t made = room - stream.avail_out;
    deflateEnd(&stream);
    return done ? made - sizeof tail : 0;
}

size_t deflate_pad(uint8_t *message, size_t length, unsigned blocks)
{
    for (; blocks > 0; blocks--, length += 5) {
        memcpy(message + length, tail, sizeof tail);
        message[length + 4] = 0; /* the next stored block's head, whose length is the tail again */
    }
    return length;
}

struct inflater {
    z_stream stream;
    bool ends;
};

struct inflater *inflater_new(void)
{
    struct inflater *inflater = calloc(1, sizeof *inflater);
    if (!inflater || inflateInit2(&inflater->stream, -15) != Z_OK) {
        fprintf(stderr, "load: out of memory\n");
        exit(2);
    }
    return inflater;
}

void inflater_free(struct inflater *inflater)
{
    if (inflater)
        inflateEnd(&inflater->stream);
    free(inflater);
}

void inflater_feed(struct inflater *inflater, const uint8_t *data, size_t length, bool ends)
{
    inflater->stream.next_in = (Bytef *)data;
    inflater->stream.avail_in = (uInt)length;
    inflater->ends = ends;
}

long inflater_take(struct inflater *inflater, uint8_t *out, size_t room)
{
    z_stream *stream = &inflater->stream;
    stream->next_out = out;
    stream->avail_out = (uInt)room;
    for (;;) {
        int status = inflate(stream, Z_SYNC_FLUSH);
        if (status != Z_OK && status != Z_BUF_ERROR)
            return -1;
        if (stream->avail_out == 0 || stream->avail_in > 0 || !inflater->ends)
            return (long)(room - stream->avail_out);
        inflater->ends = false;
        stream->next_in = (Bytef *)tail;
        stream->avail_in = sizeof tail;
    }
}

#else /* never called: options.c refuses --deflate */

size_t deflate_message(const uint8_t *data, size_t length, uint8_t *out, size_t room)
{
    (void)data, (void)length, (void)out, (void)room;
    return 0;
}

size_t deflate_pad(uint8_t *message, size_t length, unsigned blocks)
{
    (void)message, (void)blocks;
    return length;
}

struct inflater *inflater_new(void) { return NULL; }
void inflater_free(struct inflater *inflater) { (void)inflater; }

void inflater_feed(struct inflater *inflater, const uint8_t *data, size_t length, bool ends)
{
    (void)inflater, (void)data, (void)length, (void)ends;
}

long inflater_take(struct inflater *inflater, uint8_t *out, size_t room)
{
    (void)inflater, (void)out, (void)room;
    return -1;
}

#endif
