/* Masking and unmasking (RFC 6455 section 5.3) at memory speed.
 *
 * The same functions stand in frames.py in Python, for where no compiler was.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

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

static void
xor_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *mask, size_t offset)
{
    uint8_t key[8];
    for (size_t i = 0; i < 8; i++)
        key[i] = mask[(i + offset) & 3];
    uint64_t word;
    memcpy(&word, key, 8);
    size_t words = size / 8;
    xor_words(to, from, words, word);
    for (size_t i = 8 * words; i < size; i++)
        to[i] = from[i] ^ key[i & 7];
}

PyDoc_STRVAR(apply_mask_doc,
"apply_mask(data, key, offset=0) -> bytes\n\n"
"XOR data with the four bytes of key; offset is the place of data in its payload.");

static PyObject *
apply_mask(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer data;
    Py_ssize_t offset = 0;
    if (count < 2 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "apply_mask takes 2 or 3 arguments");
        return NULL;
    }
    if (!PyBytes_Check(arguments[1]) || PyBytes_GET_SIZE(arguments[1]) != 4) {
        PyErr_SetString(PyExc_ValueError, "a masking key is 4 bytes");
        return NULL;
    }
    if (count == 3) {
        offset = PyNumber_AsSsize_t(arguments[2], NULL);
        if (offset == -1 && PyErr_Occurred())
            return NULL;
    }
    if (PyObject_GetBuffer(arguments[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *masked = PyBytes_FromStringAndSize(NULL, data.len);
    if (masked != NULL)
        xor_mask((uint8_t *)PyBytes_AS_STRING(masked), data.buf, (size_t)data.len,
                 (const uint8_t *)PyBytes_AS_STRING(arguments[1]), (size_t)offset & 3);
    PyBuffer_Release(&data);
    return masked;
}

/* Read (data, start, end), where data is bytes and the key stands in the four bytes before start. */
static int
read_payload(PyObject *const *arguments, Py_ssize_t count, const uint8_t **payload, size_t *size)
{
    if (count != 3 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "takes bytes, start and end");
        return -1;
    }
    Py_ssize_t start = PyNumber_AsSsize_t(arguments[1], PyExc_OverflowError);
    if (start == -1 && PyErr_Occurred())
        return -1;
    Py_ssize_t end = PyNumber_AsSsize_t(arguments[2], PyExc_OverflowError);
    if (end == -1 && PyErr_Occurred())
        return -1;
    if (start < 4 || end < start || end > PyBytes_GET_SIZE(arguments[0])) {
        PyErr_SetString(PyExc_IndexError, "no masked payload there");
        return -1;
    }
    *payload = (const uint8_t *)PyBytes_AS_STRING(arguments[0]) + start;
    *size = (size_t)(end - start);
    return 0;
}

PyDoc_STRVAR(unmask_doc,
"unmask(data, start, end) -> bytes\n\n"
"The payload at data[start:end], unmasked by the key in the four bytes before it.");

static PyObject *
unmask(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    const uint8_t *payload;
    size_t size;
    if (read_payload(arguments, count, &payload, &size) < 0)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes != NULL)
        xor_mask((uint8_t *)PyBytes_AS_STRING(bytes), payload, size, payload - 4, 0);
    return bytes;
}

PyDoc_STRVAR(unmask_text_doc,
"unmask_text(data, start, end) -> str\n\n"
"The same, decoded from UTF-8; raises UnicodeDecodeError.");

static PyObject *
unmask_text(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    const uint8_t *payload;
    size_t size;
    uint8_t small[4096];
    if (read_payload(arguments, count, &payload, &size) < 0)
        return NULL;
    uint8_t *text = size <= sizeof small ? small : PyMem_Malloc(size);
    if (text == NULL)
        return PyErr_NoMemory();
    xor_mask(text, payload, size, payload - 4, 0);
    PyObject *decoded = PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)size, NULL);
    if (text != small)
        PyMem_Free(text);
    return decoded;
}

static PyMethodDef methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL, apply_mask_doc},
    {"unmask", (PyCFunction)(void (*)(void))unmask, METH_FASTCALL, unmask_doc},
    {"unmask_text", (PyCFunction)(void (*)(void))unmask_text, METH_FASTCALL, unmask_text_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "plainsocket._mask",
    .m_doc = "Masking and unmasking at memory speed.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__mask(void)
{
    return PyModuleDef_Init(&definition);
}
