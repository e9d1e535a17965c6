/* SHA-1 (RFC 3174) of one short text, for Sec-WebSocket-Accept: the library's needs an object. */
#ifndef PLAINSOCKET_SHA1_H
#define PLAINSOCKET_SHA1_H

#include <stdint.h>
#include <string.h>

enum { ACCEPT_SIZE = 28, KEY_SIZE = 24 };

static inline uint32_t
sha1_turn(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

#define SHA1_ROUNDS(from, mixed, constant) \
    for (int i = from; i < from + 20; i++) { \
        uint32_t next = sha1_turn(a, 5) + (mixed) + e + constant + words[i]; \
        e = d, d = c, c = sha1_turn(b, 30), b = a, a = next; \
    }

static void
sha1_add(uint32_t state[5], const unsigned char *block)
{
    uint32_t words[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++, block += 4)
        words[i] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8
                 | block[3];
    for (int i = 16; i < 80; i++)
        words[i] = sha1_turn(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    SHA1_ROUNDS(0, d ^ (b & (c ^ d)), 0x5a827999)
    SHA1_ROUNDS(20, b ^ c ^ d, 0x6ed9eba1)
    SHA1_ROUNDS(40, (b & c) | (d & (b | c)), 0x8f1bbcdc)
    SHA1_ROUNDS(60, b ^ c ^ d, 0xca62c1d6)
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* The Sec-WebSocket-Accept (RFC 6455 section 4.2.2) of a Sec-WebSocket-Key. */
static void
sha1_accept(const char *key, char *accept)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    enum { SIZE = KEY_SIZE + sizeof guid - 1 }; /* with its end mark and length it fills two blocks */
    unsigned char text[128] = {0}, digest[21] = {0};
    memcpy(text, key, KEY_SIZE);
    memcpy(text + KEY_SIZE, guid, sizeof guid - 1);
    text[SIZE] = 0x80;
    text[126] = SIZE * 8 >> 8;
    text[127] = SIZE * 8 & 0xff;
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    sha1_add(state, text);
    sha1_add(state, text + 64);
    for (int i = 0; i < 20; i++)
        digest[i] = (unsigned char)(state[i / 4] >> (24 - i % 4 * 8));
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8
                       | digest[3 * i + 2];
        for (int j = 0; j < 4; j++)
            accept[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
    }
    accept[ACCEPT_SIZE - 1] = '='; /* base64 of twenty bytes */
}

#endif
