/* The C twins of wire.py: what is done to every byte, or once for every message. */
#ifndef PLAINSOCKET_WIRE_H
#define PLAINSOCKET_WIRE_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "utf8.h"

/* The loop is compiled for AVX2 too, and the loader takes what the processor has. */
#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

FOR_EACH_CPU static void
xor_words(uint8_t *restrict to, const uint8_t *restrict from, size_t words, uint64_t key)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, from + 8 * i, 8);
        word ^= key;
        memcpy(to + 8 * i, &word, 8);
    }
}

/* The same in place, which `restrict` rules out there. */
FOR_EACH_CPU static void
xor_words_here(uint8_t *at, size_t words, uint64_t key)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, at + 8 * i, 8);
        word ^= key;
        memcpy(at + 8 * i, &word, 8);
    }
}

static inline uint64_t
repeated(const uint8_t *mask, size_t offset)
{
    uint8_t key[8];
    uint64_t word;
    for (size_t i = 0; i < 8; i++)
        key[i] = mask[(i + offset) & 3];
    memcpy(&word, key, 8);
    return word;
}

static inline void
xor_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *mask, size_t offset)
{
    uint64_t word = repeated(mask, offset);
    size_t words = size / 8;
    if (words > 16)
        xor_words(to, from, words, word);
    else
        for (size_t i = 0; i < words; i++) { /* too short to be worth a call */
            uint64_t part;
            memcpy(&part, from + 8 * i, 8);
            part ^= word;
            memcpy(to + 8 * i, &part, 8);
        }
    for (size_t i = 8 * words; i < size; i++)
        to[i] = from[i] ^ mask[(i + offset) & 3];
}

static inline void
xor_mask_here(uint8_t *at, size_t size, const uint8_t *mask, size_t offset)
{
    xor_words_here(at, size / 8, repeated(mask, offset));
    for (size_t i = size & ~(size_t)7; i < size; i++)
        at[i] ^= mask[(i + offset) & 3];
}

static PyObject *
wire_apply_mask(PyObject *data, PyObject *key, Py_ssize_t offset)
{
    Py_buffer view;
    if (!PyBytes_Check(key) || PyBytes_GET_SIZE(key) != 4) {
        PyErr_SetString(PyExc_ValueError, "a masking key is 4 bytes");
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *masked = PyBytes_FromStringAndSize(NULL, view.len);
    if (masked != NULL)
        xor_mask((uint8_t *)PyBytes_AS_STRING(masked), view.buf, (size_t)view.len,
                 (const uint8_t *)PyBytes_AS_STRING(key), (size_t)offset & 3);
    PyBuffer_Release(&view);
    return masked;
}

static int
is_key_or_none(PyObject *key)
{
    if (PyBytes_Check(key) && (PyBytes_GET_SIZE(key) == 4 || PyBytes_GET_SIZE(key) == 0))
        return 1;
    PyErr_SetString(PyExc_ValueError, "a masking key is 4 bytes");
    return 0;
}

static int
is_payload(PyObject *data, Py_ssize_t start, Py_ssize_t end)
{
    if (start >= 4 && start <= end && end <= PyBytes_GET_SIZE(data))
        return 1;
    PyErr_SetString(PyExc_IndexError, "no masked payload there");
    return 0;
}

static inline PyObject *
wire_unmask(PyObject *data, Py_ssize_t start, Py_ssize_t end)
{
    if (!is_payload(data, start, end))
        return NULL;
    const uint8_t *payload = (const uint8_t *)PyBytes_AS_STRING(data) + start;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, end - start);
    if (bytes != NULL)
        xor_mask((uint8_t *)PyBytes_AS_STRING(bytes), payload, (size_t)(end - start),
                 payload - 4, 0);
    return bytes;
}

static inline PyObject *
wire_unmask_text(PyObject *data, Py_ssize_t start, Py_ssize_t end)
{
    uint8_t small[4096];
    if (!is_payload(data, start, end))
        return NULL;
    const uint8_t *payload = (const uint8_t *)PyBytes_AS_STRING(data) + start;
    size_t size = (size_t)(end - start);
    uint8_t *text = size <= sizeof small ? small : PyMem_Malloc(size);
    if (text == NULL)
        return PyErr_NoMemory();
    xor_mask(text, payload, size, payload - 4, 0);
    PyObject *decoded = utf8_decode(text, size);
    if (text != small)
        PyMem_Free(text);
    return decoded;
}

static inline Py_ssize_t
wire_length(PyObject *message)
{
    if (PyUnicode_CheckExact(message))
        return PyUnicode_GET_LENGTH(message);
    return PyBytes_CheckExact(message) ? PyBytes_GET_SIZE(message) : PyObject_Size(message);
}

static inline PyObject *
wire_decode(PyObject *data)
{
    return utf8_decode((const uint8_t *)PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
}

static inline PyObject *
wire_encode(PyObject *text)
{
    return utf8_encoded(text);
}

/* glibc maps large blocks, or gives them back to the system as soon as some are free, and each then
 * costs a page fault for every 4 KiB; but once it has freed a block that it had mapped, it takes
 * such sizes for passing ones and keeps twice as much at hand (mallopt(3), M_MMAP_THRESHOLD). This
 * one is never written to. */
#define MAPPED_FROM (128 * 1024)
#define MOST_MAPPED (16 * 1024 * 1024)

static void
keep_at_hand(Py_ssize_t size)
{
    static Py_ssize_t kept = MAPPED_FROM;
    if (size > kept && kept < MOST_MAPPED) {
        kept = size < MOST_MAPPED / 16 ? 16 * size : MOST_MAPPED;
        PyMem_RawFree(PyMem_RawMalloc((size_t)kept));
    }
}

/* A payload that comes in pieces: bytes that nobody else has seen yet, written in place. */
static PyObject *
wire_blank(Py_ssize_t size)
{
    keep_at_hand(size);
    return PyBytes_FromStringAndSize(NULL, size);
}

static int
wire_fill(PyObject *blank, Py_ssize_t place, PyObject *data, Py_ssize_t start, Py_ssize_t end,
          PyObject *key)
{
    if (!PyBytes_Check(blank) || !PyBytes_Check(data) || !PyBytes_Check(key) || place < 0
        || start < 0 || start > end || end > PyBytes_GET_SIZE(data)
        || end - start > PyBytes_GET_SIZE(blank) - place
        || (PyBytes_GET_SIZE(key) != 0 && PyBytes_GET_SIZE(key) != 4)) {
        PyErr_SetString(PyExc_IndexError, "no such place");
        return -1;
    }
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(blank) + place;
    const uint8_t *from = (const uint8_t *)PyBytes_AS_STRING(data) + start;
    if (PyBytes_GET_SIZE(key))
        xor_mask(to, from, (size_t)(end - start), (const uint8_t *)PyBytes_AS_STRING(key),
                 (size_t)place & 3);
    else
        memcpy(to, from, (size_t)(end - start));
    return 0;
}

/* What is written to the view is masked: `wire_placed` comes next. */
static PyObject *
wire_room(PyObject *blank, Py_ssize_t place, Py_ssize_t size)
{
    if (!PyBytes_Check(blank) || place < 0 || size < 0 || size > PyBytes_GET_SIZE(blank) - place) {
        PyErr_SetString(PyExc_IndexError, "no such place");
        return NULL;
    }
    return PyMemoryView_FromMemory(PyBytes_AS_STRING(blank) + place, size, PyBUF_WRITE);
}

static int
wire_placed(PyObject *blank, Py_ssize_t place, Py_ssize_t size, PyObject *key)
{
    if (!is_key_or_none(key))
        return -1;
    if (!PyBytes_Check(blank) || place < 0 || size < 0 || size > PyBytes_GET_SIZE(blank) - place) {
        PyErr_SetString(PyExc_IndexError, "no such place");
        return -1;
    }
    uint8_t *at = (uint8_t *)PyBytes_AS_STRING(blank) + place;
    if (PyBytes_GET_SIZE(key))
        xor_mask_here(at, (size_t)size, (const uint8_t *)PyBytes_AS_STRING(key), (size_t)place & 3);
    return 0;
}

static PyObject *
wire_filled(PyObject *blank)
{
    Py_INCREF(blank);
    return blank;
}

#define WHOLE_BELOW (32 * 1024)

struct whole_frame {
    uint8_t first;
    const uint8_t *payload; /* NULL: text, to be encoded to where it is to be */
    Py_ssize_t size;
    Py_ssize_t head;
    PyObject *encoded; /* what keeps the payload, where the message does not */
};

/* 1: it is one; 0: it is none; -1: it is no text, and an exception is set. */
static inline int
whole_frame_of(PyObject *message, int is_masked, struct whole_frame *frame)
{
    frame->encoded = NULL;
    if (PyUnicode_Check(message)) {
        if (PyUnicode_GET_LENGTH(message) >= WHOLE_BELOW)
            return 0;
        frame->first = 0x81;
        if (PyUnicode_IS_COMPACT_ASCII(message)) {
            frame->payload = PyUnicode_DATA(message);
            frame->size = PyUnicode_GET_LENGTH(message);
        } else if (!is_masked && (frame->size = utf8_size(message)) >= 0) {
            frame->payload = NULL;
        } else {
            if ((frame->encoded = utf8_encoded(message)) == NULL)
                return -1;
            frame->payload = (const uint8_t *)PyBytes_AS_STRING(frame->encoded);
            frame->size = PyBytes_GET_SIZE(frame->encoded);
        }
    } else if (PyBytes_Check(message)) {
        if (PyBytes_GET_SIZE(message) >= WHOLE_BELOW)
            return 0;
        frame->first = 0x82;
        frame->payload = (const uint8_t *)PyBytes_AS_STRING(message);
        frame->size = PyBytes_GET_SIZE(message);
    } else {
        return 0;
    }
    frame->head = frame->size < 126 ? 2 : frame->size < 65536 ? 4 : 10;
    return 1;
}

/* Write it to where there is room for it; -1 with an exception if it turns out to be no text. */
static inline int
write_whole_frame(const struct whole_frame *frame, PyObject *message, PyObject *key, uint8_t *to)
{
    uint8_t masked = PyBytes_GET_SIZE(key) ? 0x80 : 0;
    to[0] = frame->first;
    if (frame->head == 2) {
        to[1] = masked | (uint8_t)frame->size;
    } else if (frame->head == 4) {
        to[1] = masked | 126;
        to[2] = (uint8_t)(frame->size >> 8);
        to[3] = (uint8_t)frame->size;
    } else {
        to[1] = masked | 127;
        for (int i = 0; i < 8; i++)
            to[2 + i] = (uint8_t)((uint64_t)frame->size >> (56 - 8 * i));
    }
    to += frame->head;
    if (masked) {
        const uint8_t *mask = (const uint8_t *)PyBytes_AS_STRING(key);
        memcpy(to, mask, 4);
        xor_mask(to + 4, frame->payload, (size_t)frame->size, mask, 0);
    } else if (frame->payload != NULL) {
        memcpy(to, frame->payload, (size_t)frame->size);
    } else if (!utf8_encode(message, to, frame->size)) {
        Py_XDECREF(PyUnicode_AsUTF8String(message)); /* which raises */
        return -1;
    }
    return 0;
}

static PyObject *
wire_whole_frame(PyObject *message, PyObject *key)
{
    struct whole_frame whole;
    if (!is_key_or_none(key))
        return NULL;
    int is_whole = whole_frame_of(message, PyBytes_GET_SIZE(key) != 0, &whole);
    if (is_whole < 0)
        return NULL;
    if (!is_whole)
        Py_RETURN_NONE;
    PyObject *frame =
        PyBytes_FromStringAndSize(NULL, whole.head + PyBytes_GET_SIZE(key) + whole.size);
    if (frame != NULL
        && write_whole_frame(&whole, message, key, (uint8_t *)PyBytes_AS_STRING(frame)) < 0)
        Py_CLEAR(frame);
    Py_XDECREF(whole.encoded);
    return frame;
}

static Py_ssize_t
wire_put_frame(PyObject *room, Py_ssize_t place, PyObject *message, PyObject *key)
{
    struct whole_frame whole;
    if (!is_key_or_none(key))
        return -1;
    if (!PyByteArray_Check(room) || place < 0 || place > PyByteArray_GET_SIZE(room)) {
        PyErr_SetString(PyExc_IndexError, "no such place");
        return -1;
    }
    Py_ssize_t size = whole_frame_of(message, PyBytes_GET_SIZE(key) != 0, &whole);
    if (size > 0) {
        size = whole.head + PyBytes_GET_SIZE(key) + whole.size;
        if (size > PyByteArray_GET_SIZE(room) - place)
            size = 0;
        else if (write_whole_frame(&whole, message, key,
                                   (uint8_t *)PyByteArray_AS_STRING(room) + place) < 0)
            size = -1;
    }
    Py_XDECREF(whole.encoded);
    return size;
}

#endif
