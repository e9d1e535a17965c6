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

static inline void
xor_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *mask, size_t offset)
{
    uint8_t key[8];
    for (size_t i = 0; i < 8; i++)
        key[i] = mask[(i + offset) & 3];
    uint64_t word;
    memcpy(&word, key, 8);
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
        to[i] = from[i] ^ key[i & 7];
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

/* A payload that comes in pieces: bytes that nobody else has seen yet, written in place. */
static PyObject *
wire_blank(Py_ssize_t size)
{
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

static PyObject *
wire_filled(PyObject *blank)
{
    Py_INCREF(blank);
    return blank;
}

#define WHOLE_BELOW (16 * 1024)

static inline PyObject *
wire_whole_frame(PyObject *message, PyObject *key)
{
    if (!PyBytes_Check(key) || (PyBytes_GET_SIZE(key) != 4 && PyBytes_GET_SIZE(key) != 0)) {
        PyErr_SetString(PyExc_ValueError, "a masking key is 4 bytes");
        return NULL;
    }
    Py_ssize_t key_size = PyBytes_GET_SIZE(key);
    uint8_t masked = key_size ? 0x80 : 0;
    const char *payload;
    Py_ssize_t size;
    uint8_t first;
    PyObject *encoded = NULL;
    if (PyUnicode_Check(message)) {
        if (PyUnicode_GET_LENGTH(message) >= WHOLE_BELOW)
            Py_RETURN_NONE;
        first = 0x81;
        if (PyUnicode_IS_COMPACT_ASCII(message)) {
            payload = PyUnicode_DATA(message);
            size = PyUnicode_GET_LENGTH(message);
        } else if (!masked && (size = utf8_size(message)) >= 0) {
            payload = NULL; /* encoded to where it is to be */
        } else {
            encoded = utf8_encoded(message);
            if (encoded == NULL)
                return NULL;
            payload = PyBytes_AS_STRING(encoded);
            size = PyBytes_GET_SIZE(encoded);
        }
    } else if (PyBytes_Check(message)) {
        if (PyBytes_GET_SIZE(message) >= WHOLE_BELOW)
            Py_RETURN_NONE;
        first = 0x82;
        payload = PyBytes_AS_STRING(message);
        size = PyBytes_GET_SIZE(message);
    } else {
        Py_RETURN_NONE;
    }
    Py_ssize_t head = size < 126 ? 2 : 4; /* four bytes of UTF-8 a character: below 65536 */
    PyObject *frame = PyBytes_FromStringAndSize(NULL, head + key_size + size);
    if (frame != NULL) {
        uint8_t *to = (uint8_t *)PyBytes_AS_STRING(frame);
        to[0] = first;
        if (head == 2) {
            to[1] = masked | (uint8_t)size;
        } else {
            to[1] = masked | 126;
            to[2] = (uint8_t)(size >> 8);
            to[3] = (uint8_t)size;
        }
        if (key_size) {
            const uint8_t *mask = (const uint8_t *)PyBytes_AS_STRING(key);
            memcpy(to + head, mask, 4);
            xor_mask(to + head + 4, (const uint8_t *)payload, (size_t)size, mask, 0);
        } else if (payload != NULL) {
            memcpy(to + head, payload, (size_t)size);
        } else if (!utf8_encode(message, to + head, size)) {
            Py_DECREF(frame);
            frame = NULL;
            Py_XDECREF(PyUnicode_AsUTF8String(message)); /* which raises */
        }
    }
    Py_XDECREF(encoded);
    return frame;
}

#endif
