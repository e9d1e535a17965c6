#include "payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deflate.h"
#include "options.h"

enum { WINDOWS = 1 << 16 };

/* With --deflate there are fewer messages, compressed beforehand and, so that
 * all frames have the same length, padded to the longest: with blocks of
 * nothing of five bytes, which is why only lengths that differ by fives will do.
 * No two have anything in common, and all of them together are longer than what
 * a compressor can look back on. */
enum { MOST_MESSAGES = 2048, CANDIDATES = 8 };
static struct { const uint8_t *plain; uint8_t *deflated; } messages[MOST_MESSAGES];
static unsigned message_count;
static size_t deflated_length;

static uint8_t *text;
static size_t unit; /* bytes of a character: windows start and end between two */
static uint64_t random_state;

/* xorshift64*: fast, and repeatable from --seed. */
static uint64_t next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717u;
}

static void fill(size_t length)
{
    static const char ascii[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    for (size_t i = 0; i < length; i += unit) {
        uint64_t r = next_random() >> 32;
        if (options.payload == PAYLOAD_BINARY) {
            text[i] = (uint8_t)r;
        } else if (options.payload == PAYLOAD_TEXT) {
            text[i] = (uint8_t)ascii[r % 64];
        } else {
            unsigned letter = 0x410 + (unsigned)(r % 64); /* Cyrillic, two bytes each */
            text[i] = (uint8_t)(0xC0 | letter >> 6);
            text[i + 1] = (uint8_t)(0x80 | (letter & 0x3F));
        }
    }
}

static void *must_allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory) {
        fprintf(stderr, "load: out of memory\n");
        exit(2);
    }
    return memory;
}

static void deflate_messages(void)
{
    static size_t lengths[MOST_MESSAGES];
    size_t room = options.size + options.size / 8 + 1024;
    unsigned count = 0;
    for (unsigned i = 0; i < CANDIDATES * message_count && count < message_count; i++) {
        uint8_t *deflated = must_allocate(room);
        messages[count].plain = text + i * options.size;
        messages[count].deflated = deflated;
        size_t length = deflate_message(messages[count].plain, options.size, deflated, room);
        if (length == 0 || (count > 0 && length % 5 != lengths[0] % 5)) {
            free(deflated);
            continue;
        }
        if (length > deflated_length)
            deflated_length = length;
        lengths[count++] = length;
    }
    if (count < message_count) {
        fprintf(stderr, "load: no messages of the same length could be made by --deflate\n");
        exit(2);
    }
    for (unsigned i = 0; i < message_count; i++)
        deflate_pad(messages[i].deflated, lengths[i], (unsigned)(deflated_length - lengths[i]) / 5);
}

void payload_init(void)
{
    random_state = options.seed * 0x9E3779B97F4A7C15u;
    unit = options.payload == PAYLOAD_UTF8 ? 2 : 1;
    size_t length = options.size + WINDOWS * unit;
    if (options.deflate) {
        message_count = options.size < 1024 ? MOST_MESSAGES : options.size <= 65536 ? 64 : 8;
        length = options.size * CANDIDATES * message_count;
    }
    text = must_allocate(length);
    fill(length);
    if (options.deflate)
        deflate_messages();
}

uint8_t payload_opcode(void)
{
    return options.payload == PAYLOAD_BINARY ? 2 : 1;
}

const uint8_t *payload_of(uint32_t id, uint64_t number)
{
    if (options.deflate)
        return messages[(id * 7919u + number * 31u) % message_count].plain;
    return text + (id * 7919u + number * 31u) % WINDOWS * unit;
}

static size_t wire_length(void)
{
    return options.deflate ? deflated_length : options.size;
}

static size_t header_length(void)
{
    return wire_length() < 126 ? 2 : wire_length() < 65536 ? 4 : 10;
}

unsigned payload_variants(void)
{
    return message_count;
}

size_t payload_frame_length(void)
{
    return header_length() + 4 + wire_length();
}

/* Writes a mask and the data under it. */
static void write_masked(uint8_t *to, const uint8_t *data, size_t length)
{
    uint32_t mask = (uint32_t)(next_random() >> 32);
    memcpy(to, &mask, 4);
    to += 4;
    uint64_t wide = (uint64_t)mask << 32 | mask, part;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&part, data + i, 8);
        part ^= wide;
        memcpy(to + i, &part, 8);
    }
    for (; i < length; i++)
        to[i] = data[i] ^ ((uint8_t *)&wide)[i % 8];
}

void payload_write_frame(uint8_t *frame, uint32_t id, uint64_t number)
{
    size_t header = header_length(), size = wire_length();
    const uint8_t *data = options.deflate
                              ? messages[(id * 7919u + number * 31u) % message_count].deflated
                              : payload_of(id, number);
    frame[0] = (options.deflate ? 0xC0 : 0x80) | payload_opcode();
    frame[1] = 0x80 | (uint8_t)(header == 2 ? size : header == 4 ? 126 : 127);
    for (size_t i = 2; i < header; i++)
        frame[i] = (uint8_t)(size >> 8 * (header - 1 - i));
    write_masked(frame + header, data, size);
}

size_t payload_write_control(uint8_t *frame, uint8_t opcode, const uint8_t *data, size_t length)
{
    frame[0] = 0x80 | opcode;
    frame[1] = 0x80 | (uint8_t)length;
    write_masked(frame + 2, data, length);
    return 6 + length;
}
