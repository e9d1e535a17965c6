/* UTF-8 to and from CPython's strings, sixteen bytes or eight characters at a time.
 *
 * This accepts exactly what CPython's strict codec does. It is that codec that does the work for
 * other processors, for short text, and wherever something is wrong: it has the exception to raise.
 */
#ifndef PLAINSOCKET_UTF8_H
#define PLAINSOCKET_UTF8_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#define SHORT_TEXT 64 /* bytes or characters: with less nothing can be gained */

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define ON_AVX2 __attribute__((target("avx2,popcnt")))

/* How to move together what is to be kept of a vector: of eight pairs of bytes those whose bit is
 * set; of each of eight pairs the first byte, and the second where the bit is set; of each of four
 * words as many bytes as its two bits say, and one more. */
static uint8_t utf8_kept_pairs[256][16], utf8_kept_second[256][16], utf8_kept_bytes[256][16];
static uint8_t utf8_kept_sizes[256]; /* how many of utf8_kept_bytes */

static int
utf8_can(void)
{
    static int can = -1;
    if (can < 0) {
        for (int index = 0; index < 256; index++) {
            int place = 0;
            for (int pair = 0; pair < 8; pair++)
                if (index >> pair & 1) {
                    utf8_kept_pairs[index][place++] = (uint8_t)(2 * pair);
                    utf8_kept_pairs[index][place++] = (uint8_t)(2 * pair + 1);
                }
            place = 0;
            for (int pair = 0; pair < 8; pair++)
                for (int byte = 0; byte <= (index >> pair & 1); byte++)
                    utf8_kept_second[index][place++] = (uint8_t)(2 * pair + byte);
            place = 0;
            for (int word = 0; word < 4; word++)
                for (int byte = 0; byte <= (index >> word & 1) + 2 * (index >> word >> 4 & 1); byte++)
                    utf8_kept_bytes[index][place++] = (uint8_t)(4 * word + byte);
            utf8_kept_sizes[index] = (uint8_t)place;
        }
        can = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
    }
    return can;
}

/* -- decoding --------------------------------------------------------------------------------- */

/* Count the bytes that continue no character, and find the largest byte. */
ON_AVX2 static size_t
utf8_survey(const uint8_t *text, size_t size, uint8_t *largest)
{
    size_t count = 0, i = 0;
    uint8_t most = 0;
    __m256i all_most = _mm256_setzero_si256();
    for (; i + 32 <= size; i += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(text + i));
        __m256i begins = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(-65));
        count += (size_t)__builtin_popcount((unsigned)_mm256_movemask_epi8(begins));
        all_most = _mm256_max_epu8(all_most, bytes);
    }
    uint8_t each_most[32];
    _mm256_storeu_si256((__m256i *)each_most, all_most);
    for (int j = 0; j < 32; j++)
        most = each_most[j] > most ? each_most[j] : most;
    for (; i < size; i++) {
        count += (int8_t)text[i] > -65;
        most = text[i] > most ? text[i] : most;
    }
    *largest = most;
    return count;
}

struct utf8_decoding {
    __m256i wrong;    /* not 0 where something was */
    size_t announced; /* bytes that must continue a character */
};

/* Decode what begins in the sixteen bytes at `from`, of which two more can be read; return how many
 * characters that were. There is room for sixteen at `to`, of `width` bytes each.
 *
 * Every byte is taken for the first of a character of one, of two and of three bytes, and then the
 * right one of the three is kept. */
ON_AVX2 static inline __attribute__((always_inline)) size_t
utf8_decode_16(const uint8_t *from, uint8_t *to, int width, struct utf8_decoding *state)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)from);
    __m256i first = _mm256_cvtepu8_epi16(bytes);
    __m256i second = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(from + 1)));
    __m256i third = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(from + 2)));
    __m256i low_six = _mm256_set1_epi16(0x3F), zero = _mm256_setzero_si256();
    __m256i two = _mm256_or_si256(
        _mm256_slli_epi16(_mm256_and_si256(first, _mm256_set1_epi16(0x1F)), 6),
        _mm256_and_si256(second, low_six));
    __m256i three = _mm256_or_si256(
        _mm256_slli_epi16(first, 12),
        _mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(second, low_six), 6),
                        _mm256_and_si256(third, low_six)));
    __m256i has_second = _mm256_cmpgt_epi16(first, _mm256_set1_epi16(0xBF));
    __m256i has_third = _mm256_cmpgt_epi16(first, _mm256_set1_epi16(0xDF));
    __m256i characters = _mm256_blendv_epi8(_mm256_blendv_epi8(first, two, has_second), three,
                                            has_third);

    __m256i high_two = _mm256_set1_epi16(0xC0), continues = _mm256_set1_epi16(0x80);
    __m256i no_second = _mm256_xor_si256(_mm256_and_si256(second, high_two), continues);
    __m256i no_third = _mm256_xor_si256(_mm256_and_si256(third, high_two), continues);
    __m256i high = _mm256_and_si256(characters, _mm256_set1_epi16((short)0xF800));
    __m256i below_80 = _mm256_cmpeq_epi16(
        _mm256_and_si256(characters, _mm256_set1_epi16((short)0xFF80)), zero);
    __m256i surrogate_or_below_800 = _mm256_or_si256(
        _mm256_cmpeq_epi16(high, zero), _mm256_cmpeq_epi16(high, _mm256_set1_epi16((short)0xD800)));
    state->wrong = _mm256_or_si256(
        state->wrong,
        _mm256_or_si256(
            _mm256_and_si256(has_second, _mm256_or_si256(no_second, below_80)),
            _mm256_and_si256(has_third, _mm256_or_si256(no_third, surrogate_or_below_800))));

    unsigned above_7f = (unsigned)_mm_movemask_epi8(bytes);
    unsigned begins = (unsigned)_mm_movemask_epi8(_mm_cmpgt_epi8(bytes, _mm_set1_epi8(-65)));
    unsigned begin_three = (unsigned)_mm_movemask_epi8(_mm_cmpgt_epi8(bytes, _mm_set1_epi8(-33)));
    state->announced += (size_t)__builtin_popcount(begins & above_7f)
                        + (size_t)__builtin_popcount(begin_three & above_7f);

    size_t done = 0;
    for (int half = 0; half < 2; half++) {
        unsigned kept = begins >> 8 * half & 0xFF;
        __m128i eight = half ? _mm256_extracti128_si256(characters, 1)
                             : _mm256_castsi256_si128(characters);
        eight = _mm_shuffle_epi8(eight, _mm_loadu_si128((const __m128i *)utf8_kept_pairs[kept]));
        if (width == 1)
            _mm_storel_epi64((__m128i *)(to + done), _mm_packus_epi16(eight, eight));
        else
            _mm_storeu_si128((__m128i *)(to + 2 * done), eight);
        done += (size_t)__builtin_popcount(kept);
    }
    return done;
}

/* Return whether it was UTF-8: `size` bytes, none of them above EF, in which `count` characters of
 * `width` bytes begin. */
ON_AVX2 static inline __attribute__((always_inline)) int
utf8_decode_to(const uint8_t *from, size_t size, uint8_t *to, size_t count, int width)
{
    struct utf8_decoding state = {_mm256_setzero_si256(), 0};
    uint8_t last[64 + 16] = {0}, last_to[2 * (64 + 16)];
    size_t continuing = size - count;
    while (size >= 18 && count >= 16) {
        size_t done = utf8_decode_16(from, to, width, &state);
        from += 16;
        size -= 16;
        to += (size_t)width * done;
        count -= done;
    }
    if (size > 64)
        return 0; /* no room, because too many bytes continue nothing */
    memcpy(last, from, size);
    size_t done = 0;
    for (size_t i = 0; i < size; i += 16)
        done += utf8_decode_16(last + i, last_to + (size_t)width * done, width, &state);
    memcpy(to, last_to, (size_t)width * count);
    return state.announced == continuing && _mm256_testz_si256(state.wrong, state.wrong);
}

ON_AVX2 static int
utf8_decode_to_1(const uint8_t *from, size_t size, uint8_t *to, size_t count)
{
    return utf8_decode_to(from, size, to, count, 1);
}

ON_AVX2 static int
utf8_decode_to_2(const uint8_t *from, size_t size, uint8_t *to, size_t count)
{
    return utf8_decode_to(from, size, to, count, 2);
}

/* -- encoding --------------------------------------------------------------------------------- */

/* Encode eight characters below U+0800; return how many bytes that makes. There is room for 16. */
ON_AVX2 static inline __attribute__((always_inline)) size_t
utf8_encode_8_low(__m128i points, uint8_t *to)
{
    __m128i over_1 = _mm_cmpgt_epi16(points, _mm_set1_epi16(0x7F));
    __m128i two = _mm_or_si128(
        _mm_or_si128(_mm_srli_epi16(points, 6), _mm_set1_epi16((short)0x80C0)),
        _mm_slli_epi16(_mm_and_si128(points, _mm_set1_epi16(0x3F)), 8));
    unsigned bits = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(over_1, over_1)) & 0xFF;
    __m128i kept = _mm_loadu_si128((const __m128i *)utf8_kept_second[bits]);
    _mm_storeu_si128((__m128i *)to, _mm_shuffle_epi8(_mm_blendv_epi8(points, two, over_1), kept));
    return 8 + (size_t)__builtin_popcount(bits);
}

/* Encode any eight characters; return how many bytes that makes. There is room for 32 at `to`. */
ON_AVX2 static inline __attribute__((always_inline)) size_t
utf8_encode_8_any(__m256i points, uint8_t *to, __m256i *surrogates)
{
    __m256i low_six = _mm256_set1_epi32(0x3F), continues = _mm256_set1_epi32(0x80);
#define TAIL(shift)                                                                                \
    _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(points, shift), low_six), continues)
#define LEAD(shift, mark)                                                                          \
    _mm256_or_si256(_mm256_srli_epi32(points, shift), _mm256_set1_epi32(mark))
#define PUT(place, byte) _mm256_slli_epi32(byte, 8 * (place))
    __m256i last = TAIL(0), middle = TAIL(6);
    __m256i two = _mm256_or_si256(LEAD(6, 0xC0), PUT(1, last));
    __m256i three = _mm256_or_si256(LEAD(12, 0xE0),
                                    _mm256_or_si256(PUT(1, middle), PUT(2, last)));
    __m256i four = _mm256_or_si256(
        _mm256_or_si256(LEAD(18, 0xF0), PUT(1, TAIL(12))),
        _mm256_or_si256(PUT(2, middle), PUT(3, last)));
#undef TAIL
#undef LEAD
#undef PUT
    __m256i over_1 = _mm256_cmpgt_epi32(points, _mm256_set1_epi32(0x7F));
    __m256i over_2 = _mm256_cmpgt_epi32(points, _mm256_set1_epi32(0x7FF));
    __m256i over_3 = _mm256_cmpgt_epi32(points, _mm256_set1_epi32(0xFFFF));
    __m256i bytes = _mm256_blendv_epi8(
        _mm256_blendv_epi8(_mm256_blendv_epi8(points, two, over_1), three, over_2), four, over_3);
    __m256i high = _mm256_and_si256(points, _mm256_set1_epi32((int)0xFFFFF800));
    *surrogates = _mm256_or_si256(*surrogates,
                                  _mm256_cmpeq_epi32(high, _mm256_set1_epi32(0xD800)));

    /* The size less one, in two bits: 1 for two bytes and for four, 2 for three and for four. */
    __m256i bit_0 = _mm256_or_si256(_mm256_andnot_si256(over_2, over_1), over_3);
    unsigned bits_0 = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(bit_0));
    unsigned bits_1 = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(over_2));
    size_t done = 0;
    for (int half = 0; half < 2; half++) {
        unsigned index = (bits_0 >> 4 * half & 15) | (bits_1 >> 4 * half & 15) << 4;
        __m128i four_words = half ? _mm256_extracti128_si256(bytes, 1)
                                  : _mm256_castsi256_si128(bytes);
        const __m128i *kept = (const __m128i *)utf8_kept_bytes[index];
        _mm_storeu_si128((__m128i *)(to + done),
                         _mm_shuffle_epi8(four_words, _mm_loadu_si128(kept)));
        done += utf8_kept_sizes[index];
    }
    return done;
}

/* Encode eight characters of `width` bytes each. */
ON_AVX2 static inline __attribute__((always_inline)) size_t
utf8_encode_8(const uint8_t *from, int width, uint8_t *to, __m256i *surrogates)
{
    if (width == 4)
        return utf8_encode_8_any(_mm256_loadu_si256((const __m256i *)from), to, surrogates);
    if (width == 1)
        return utf8_encode_8_low(_mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)from)), to);
    __m128i points = _mm_loadu_si128((const __m128i *)from);
    if (_mm_testz_si128(points, _mm_set1_epi16((short)0xF800)))
        return utf8_encode_8_low(points, to);
    return utf8_encode_8_any(_mm256_cvtepu16_epi32(points), to, surrogates);
}

/* Encode to `to`, where there is room for `room` bytes, as many as it needs. Return whether it can
 * be: a surrogate can't. */
ON_AVX2 static inline __attribute__((always_inline)) int
utf8_encode_from(const uint8_t *from, size_t count, int width, uint8_t *to, size_t room)
{
    __m256i surrogates = _mm256_setzero_si256();
    while (count >= 8 && room >= 32) {
        size_t done = utf8_encode_8(from, width, to, &surrogates);
        from += 8 * width;
        count -= 8;
        to += done;
        room -= done;
    }
    while (count > 0) {
        size_t some = count < 8 ? count : 8;
        uint8_t last[32] = {0}, last_to[32];
        memcpy(last, from, some * (size_t)width);
        size_t done = utf8_encode_8(last, width, last_to, &surrogates) - (8 - some);
        memcpy(to, last_to, done);
        from += some * (size_t)width;
        count -= some;
        to += done;
    }
    return _mm256_testz_si256(surrogates, surrogates);
}

ON_AVX2 static Py_ssize_t
utf8_size_of(const uint8_t *from, size_t count, int width)
{
    size_t size = count;
    if (width == 1)
        for (size_t i = 0; i < count; i++)
            size += from[i] >> 7;
    else if (width == 2)
        for (size_t i = 0; i < count; i++) {
            uint16_t point = ((const uint16_t *)from)[i];
            size += (size_t)((point >= 0x80) + (point >= 0x800));
        }
    else
        for (size_t i = 0; i < count; i++) {
            uint32_t point = ((const uint32_t *)from)[i];
            size += (size_t)((point >= 0x80) + (point >= 0x800) + (point >= 0x10000));
        }
    return (Py_ssize_t)size;
}

ON_AVX2 static int
utf8_encode_any(const uint8_t *from, size_t count, int width, uint8_t *to, size_t room)
{
    if (width == 1)
        return utf8_encode_from(from, count, 1, to, room);
    if (width == 2)
        return utf8_encode_from(from, count, 2, to, room);
    return utf8_encode_from(from, count, 4, to, room);
}

#endif

/* -- for strings ------------------------------------------------------------------------------ */

static inline int
is_short_ascii(const uint8_t *text, size_t size)
{
    uint64_t all = 0, word;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, text + i, 8);
        all |= word;
    }
    for (; i < size; i++)
        all |= text[i];
    return !(all & 0x8080808080808080);
}

/* As PyUnicode_DecodeUTF8 without an error handler. */
static PyObject *
utf8_decode(const uint8_t *text, size_t size)
{
#ifdef ON_AVX2
    uint8_t largest;
    if (size >= SHORT_TEXT && utf8_can()) {
        size_t count = utf8_survey(text, size, &largest);
        if (largest >= 0x80 && largest < 0xF0) {
            int is_wide = largest >= 0xC4; /* from U+0100 on */
            PyObject *decoded = PyUnicode_New((Py_ssize_t)count, is_wide ? 0xFFFF : 0xFF);
            if (decoded == NULL)
                return NULL;
            uint8_t *to = PyUnicode_DATA(decoded);
            if (is_wide ? utf8_decode_to_2(text, size, to, count)
                        : utf8_decode_to_1(text, size, to, count))
                return decoded;
            Py_DECREF(decoded);
        }
    }
#endif
    if (size > 1 && size < SHORT_TEXT && is_short_ascii(text, size)) {
        PyObject *decoded = PyUnicode_New((Py_ssize_t)size, 0x7F);
        if (decoded != NULL)
            memcpy(PyUnicode_DATA(decoded), text, size);
        return decoded;
    }
    return PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)size, NULL);
}

/* How many bytes `text` takes, where utf8_encode can do it; otherwise -1. */
static Py_ssize_t
utf8_size(PyObject *text)
{
#ifdef ON_AVX2
    Py_ssize_t count = PyUnicode_GET_LENGTH(text);
    if (count >= SHORT_TEXT && !PyUnicode_IS_ASCII(text) && utf8_can())
        return utf8_size_of(PyUnicode_DATA(text), (size_t)count, (int)PyUnicode_KIND(text));
#endif
    return -1;
}

/* Encode `text` to where there is room for utf8_size bytes. Return whether that can be. */
static int
utf8_encode(PyObject *text, uint8_t *to, Py_ssize_t size)
{
#ifdef ON_AVX2
    return utf8_encode_any(PyUnicode_DATA(text), (size_t)PyUnicode_GET_LENGTH(text),
                           (int)PyUnicode_KIND(text), to, (size_t)size);
#else
    return 0;
#endif
}

/* As PyUnicode_AsUTF8String. */
static PyObject *
utf8_encoded(PyObject *text)
{
    Py_ssize_t size = utf8_size(text);
    if (size >= 0) {
        PyObject *encoded = PyBytes_FromStringAndSize(NULL, size);
        if (encoded == NULL || utf8_encode(text, (uint8_t *)PyBytes_AS_STRING(encoded), size))
            return encoded;
        Py_DECREF(encoded);
    }
    return PyUnicode_AsUTF8String(text);
}

#endif
