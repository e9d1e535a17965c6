/* SHA-1 (RFC 3174) of one short text, for Sec-WebSocket-Accept: the library's needs an object. */
#ifndef PLAINSOCKET_SHA1_H
#define PLAINSOCKET_SHA1_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#define HAVE_SHA_NI
#endif

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
sha1_add_anywhere(uint32_t state[5], const unsigned char *block)
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

#ifdef HAVE_SHA_NI

/* Five times four rounds, of which the instructions do four at once. Those of e are its own word and
 * the last but one state's first. */
#define SHA1_FIVE_TIMES(from, kind) \
    for (int i = from; i < from + 5; i++) { \
        __m128i word = words[i & 3]; \
        if (i >= 4) \
            word = words[i & 3] = _mm_sha1msg2_epu32( \
                _mm_xor_si128(_mm_sha1msg1_epu32(word, words[(i + 1) & 3]), words[(i + 2) & 3]), \
                words[(i + 3) & 3]); \
        word = i == 0 ? _mm_add_epi32(e, word) : _mm_sha1nexte_epu32(before, word); \
        before = abcd; \
        abcd = _mm_sha1rnds4_epu32(abcd, word, kind); \
    }

/* The same by the processor's own instructions. */
__attribute__((target("sha,sse4.1"))) static void
sha1_add_quickly(uint32_t state[5], const unsigned char *block)
{
    const __m128i reversed = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
    const __m128i start = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0x1b);
    const __m128i e = _mm_set_epi32((int)state[4], 0, 0, 0);
    __m128i abcd = start, before = start, words[4];
    for (int i = 0; i < 4; i++)
        words[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)block + i), reversed);
    SHA1_FIVE_TIMES(0, 0)
    SHA1_FIVE_TIMES(5, 1)
    SHA1_FIVE_TIMES(10, 2)
    SHA1_FIVE_TIMES(15, 3)
    abcd = _mm_shuffle_epi32(_mm_add_epi32(abcd, start), 0x1b);
    state[4] = (uint32_t)_mm_extract_epi32(_mm_sha1nexte_epu32(before, e), 3);
    _mm_storeu_si128((__m128i *)state, abcd);
}

static int
sha1_can_quickly(void)
{
    static int can = -1;
    unsigned a, b = 0, c, d;
    if (can < 0)
        can = __builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &a, &b, &c, &d)
           && (b >> 29 & 1); /* bit 29: SHA */
    return can;
}

#endif

static void
sha1_add(uint32_t state[5], const unsigned char *block)
{
#ifdef HAVE_SHA_NI
    if (sha1_can_quickly()) {
        sha1_add_quickly(state, block);
        return;
    }
#endif
    sha1_add_anywhere(state, block);
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
