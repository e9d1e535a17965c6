/* The C twin of lines.py: the lines of an HTTP request's head, cut into names and values. */
#ifndef PLAINSOCKET_LINES_H
#define PLAINSOCKET_LINES_H

#include <Python.h>
#include <string.h>

enum { IN_TOKEN = 1, IN_TARGET = 2, IN_VALUE = 4 };

/* What each byte may stand in. */
static unsigned char lines_kinds[256];

static void
lines_set_up(void)
{
    for (int c = 0; c < 256; c++) {
        int is_word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (is_word || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL))
            lines_kinds[c] |= IN_TOKEN;
        if (c > ' ' && c <= '~' && c != '#')
            lines_kinds[c] |= IN_TARGET;
        if (c == '\t' || (c >= ' ' && c != 0x7f))
            lines_kinds[c] |= IN_VALUE;
    }
}

/* The first place from `at` on whose byte is of another kind: the zero behind `data` at the latest. */
static inline const char *
lines_pass(const char *at, int kind)
{
    while (lines_kinds[(unsigned char)*at] & kind)
        at++;
    return at;
}

/* The bytes from `at` to `end` as str; in lower case if they are a token and `is_lower`. */
static PyObject *
lines_text(const char *at, const char *end, int is_lower)
{
    Py_ssize_t size = end - at;
    unsigned char all = 0;
    for (Py_ssize_t i = 0; i < size; i++)
        all |= (unsigned char)at[i];
    PyObject *text = PyUnicode_New(size, all < 128 ? 127 : 255);
    if (text == NULL || size == 0)
        return text;
    Py_UCS1 *to = PyUnicode_1BYTE_DATA(text);
    memcpy(to, at, (size_t)size);
    for (Py_ssize_t i = 0; is_lower && i < size; i++)
        to[i] |= (Py_UCS1)((to[i] >= 'A' && to[i] <= 'Z') << 5);
    return text;
}

/* Add a header to both; 0 without an error. */
static int
lines_add(PyObject *headers, PyObject *fields, const char *name, const char *colon,
          const char *value, const char *end)
{
    int result = -1;
    PyObject *as_sent = lines_text(name, colon, 0), *lower = lines_text(name, colon, 1);
    PyObject *text = lines_text(value, end, 0), *pair = NULL;
    if (as_sent && lower && text && (pair = PyTuple_Pack(2, as_sent, text))
            && PyList_Append(headers, pair) == 0)
        result = PyDict_SetItem(fields, lower, text);
    Py_XDECREF(as_sent);
    Py_XDECREF(lower);
    Py_XDECREF(text);
    Py_XDECREF(pair);
    return result;
}

static PyObject *
lines_cut(PyObject *data)
{
    if (!lines_kinds['a'])
        lines_set_up();
    const char *method = PyBytes_AS_STRING(data), *end = method + PyBytes_GET_SIZE(data);
    const char *method_end = lines_pass(method, IN_TOKEN), *target = method_end + 1;
    if (method_end == method || *method_end != ' ')
        Py_RETURN_NONE;
    const char *target_end = lines_pass(target, IN_TARGET), *version = target_end + 1;
    if (target_end == target || *target_end != ' ' || end - version < 10
            || memcmp(version, "HTTP/1.", 7) || (version[7] != '0' && version[7] != '1')
            || memcmp(version + 8, "\r\n", 2))
        Py_RETURN_NONE;
    PyObject *headers = PyList_New(0), *fields = PyDict_New(), *cut = NULL;
    if (headers == NULL || fields == NULL)
        goto done;
    const char *at = version + 10;
    while (*at != '\r') {
        const char *colon = lines_pass(at, IN_TOKEN), *value = colon + 1;
        if (colon == at || *colon != ':')
            goto malformed;
        while (*value == ' ' || *value == '\t')
            value++;
        const char *line_end = lines_pass(value, IN_VALUE), *value_end = line_end;
        if (end - line_end < 2 || memcmp(line_end, "\r\n", 2))
            goto malformed;
        while (value_end > value && (value_end[-1] == ' ' || value_end[-1] == '\t'))
            value_end--;
        if (lines_add(headers, fields, at, colon, value, value_end) < 0)
            goto done;
        at = line_end + 2;
    }
    if (end - at != 2 || at[1] != '\n')
        goto malformed;
    cut = Py_BuildValue("(s#s#s#OO)", method, method_end - method, target, target_end - target,
                        version, (Py_ssize_t)8, headers,
                        PyDict_GET_SIZE(fields) == PyList_GET_SIZE(headers) ? fields : Py_None);
    goto done;
malformed:
    cut = Py_NewRef(Py_None);
done:
    Py_XDECREF(headers);
    Py_XDECREF(fields);
    return cut;
}

#endif
