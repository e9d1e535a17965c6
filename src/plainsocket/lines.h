/* The C twin of lines.py: the lines of an HTTP request's head, cut into names and values. */
#ifndef PLAINSOCKET_LINES_H
#define PLAINSOCKET_LINES_H

#include <Python.h>
#include <string.h>
#include "sha1.h"

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

/* The next line, from `at` on, cut at its colon; what stands behind it, or NULL for a malformed one. */
struct header {
    const char *name, *colon, *value, *end;
};

static const char *
lines_next(const char *at, const char *end, struct header *header)
{
    header->name = at;
    header->colon = lines_pass(at, IN_TOKEN);
    if (header->colon == at || *header->colon != ':')
        return NULL;
    header->value = header->colon + 1;
    while (*header->value == ' ' || *header->value == '\t')
        header->value++;
    const char *line_end = header->end = lines_pass(header->value, IN_VALUE);
    if (end - line_end < 2 || memcmp(line_end, "\r\n", 2))
        return NULL;
    while (header->end > header->value && (header->end[-1] == ' ' || header->end[-1] == '\t'))
        header->end--;
    return line_end + 2;
}

/* Add a header to `fields`, and to `headers` if that is one; 0 without an error. */
static int
lines_add(PyObject *headers, PyObject *fields, const struct header *header)
{
    PyObject *lower = lines_text(header->name, header->colon, 1);
    PyObject *value = lines_text(header->value, header->end, 0);
    int result = lower && value ? PyDict_SetItem(fields, lower, value) : -1;
    if (result == 0 && headers != NULL) {
        PyObject *name = lines_text(header->name, header->colon, 0);
        PyObject *pair = name ? PyTuple_Pack(2, name, value) : NULL;
        result = pair ? PyList_Append(headers, pair) : -1;
        Py_XDECREF(name);
        Py_XDECREF(pair);
    }
    Py_XDECREF(lower);
    Py_XDECREF(value);
    return result;
}

struct request_line {
    const char *method, *method_end, *target, *target_end, *version, *end;
};

/* Whether `data` begins with a well-formed request line. */
static int
lines_begin(const char *data, const char *end, struct request_line *line)
{
    if (!lines_kinds['a'])
        lines_set_up();
    line->method = data;
    line->method_end = lines_pass(data, IN_TOKEN);
    if (line->method_end == data || *line->method_end != ' ')
        return 0;
    line->target = line->method_end + 1;
    line->target_end = lines_pass(line->target, IN_TARGET);
    line->version = line->target_end + 1;
    line->end = line->version + 10;
    return line->target_end != line->target && *line->target_end == ' ' && line->end <= end
        && !memcmp(line->version, "HTTP/1.", 7)
        && (line->version[7] == '0' || line->version[7] == '1')
        && !memcmp(line->version + 8, "\r\n", 2);
}

static PyObject *
lines_cut(PyObject *data)
{
    const char *at = PyBytes_AS_STRING(data), *end = at + PyBytes_GET_SIZE(data);
    struct request_line line;
    struct header header;
    if (!lines_begin(at, end, &line))
        Py_RETURN_NONE;
    PyObject *headers = PyList_New(0), *fields = PyDict_New(), *cut = NULL;
    if (headers == NULL || fields == NULL)
        goto done;
    at = line.end;
    while (*at != '\r') {
        at = lines_next(at, end, &header);
        if (at == NULL)
            goto malformed;
        if (lines_add(headers, fields, &header) < 0)
            goto done;
    }
    if (end - at != 2 || at[1] != '\n')
        goto malformed;
    cut = Py_BuildValue("(s#s#s#OO)", line.method, line.method_end - line.method,
                        line.target, line.target_end - line.target, line.version, (Py_ssize_t)8,
                        headers,
                        PyDict_GET_SIZE(fields) == PyList_GET_SIZE(headers) ? fields : Py_None);
    goto done;
malformed:
    cut = Py_NewRef(Py_None);
done:
    Py_XDECREF(headers);
    Py_XDECREF(fields);
    return cut;
}

static PyObject *
lines_cut_plain(PyObject *data)
{
    const char *start = PyBytes_AS_STRING(data), *at, *end = start + PyBytes_GET_SIZE(data);
    struct request_line line;
    struct header header;
    if (!lines_begin(start, end, &line) || memcmp(start, "GET ", 4))
        Py_RETURN_NONE;
    PyObject *fields = PyDict_New(), *cut = NULL;
    Py_ssize_t count = 0;
    for (at = line.end; fields != NULL && *at != '\r'; count++) {
        at = lines_next(at, end, &header);
        if (at == NULL || memchr(header.name, '_', (size_t)(header.colon - header.name)))
            goto other;
        if (lines_add(NULL, fields, &header) < 0)
            goto done;
    }
    if (fields == NULL)
        goto done;
    if (end - at < 2 || at[1] != '\n' || PyDict_GET_SIZE(fields) != count)
        goto other;
    cut = Py_BuildValue("(ns#s#O)", at + 2 - start, line.target, line.target_end - line.target,
                        line.version, (Py_ssize_t)8, fields);
    goto done;
other:
    cut = Py_NewRef(Py_None);
done:
    Py_XDECREF(fields);
    return cut;
}

/* The headers that decide about a WebSocket. Those in SAID differ from page to page, and are given
 * back as they came; a request with one of those behind KEY is no plain one. */
enum { HOST, ORIGIN, PROTOCOL, EXTENSIONS, SAID, UPGRADE = SAID, CONNECTION, VERSION, KEY, LENGTH,
       CODING, JUDGED };

static const struct { const char *name; Py_ssize_t size; } lines_judged[JUDGED] = {
    {"host", 4}, {"origin", 6}, {"sec-websocket-protocol", 22}, {"sec-websocket-extensions", 24},
    {"upgrade", 7}, {"connection", 10}, {"sec-websocket-version", 21}, {"sec-websocket-key", 17},
    {"content-length", 14}, {"transfer-encoding", 17},
};

enum { MOST_SAID = 512 };

/* Whether the bytes from `at` to `end` are `text`, which is in lower case. */
static int
lines_is(const char *at, const char *end, const char *text, Py_ssize_t size)
{
    if (end - at != size)
        return 0;
    for (; size > 0; size--, at++, text++)
        if ((*at | (*at >= 'A' && *at <= 'Z') << 5) != *text)
            return 0;
    return 1;
}

/* Which of the judged headers it is, or JUDGED. */
static int
lines_which(const struct header *header)
{
    int which = 0;
    while (which < JUDGED && !lines_is(header->name, header->colon, lines_judged[which].name,
                                       lines_judged[which].size))
        which++;
    return which;
}

/* Whether `text` is one of the tokens in a list. */
static int
lines_lists(const struct header *header, const char *text, Py_ssize_t size)
{
    for (const char *at = header->value; at < header->end; at++) {
        const char *comma = memchr(at, ',', (size_t)(header->end - at));
        const char *next = comma != NULL ? comma : header->end, *end = next;
        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
            end--;
        if (lines_is(at, end, text, size))
            return 1;
        at = next;
    }
    return 0;
}

/* Whether it is 16 bytes in base64. */
static int
lines_is_key(const struct header *header)
{
    const char *at = header->value;
    if (header->end - at != KEY_SIZE)
        return 0;
    for (int i = 0; i < KEY_SIZE - 2; i++) {
        char c = at[i];
        int is_word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!is_word && c != '+' && c != '/')
            return 0;
    }
    return at[KEY_SIZE - 2] == '=' && at[KEY_SIZE - 1] == '=';
}

static PyObject *
lines_cut_upgrade(PyObject *data, Py_ssize_t max_headers)
{
    const char *start = PyBytes_AS_STRING(data), *at, *end = start + PyBytes_GET_SIZE(data);
    struct request_line line;
    struct header header, judged[JUDGED] = {{0}};
    Py_ssize_t count = 0;
    if (!lines_begin(start, end, &line) || memcmp(start, "GET /", 5) || line.version[7] != '1')
        Py_RETURN_NONE;
    for (at = line.end; *at != '\r'; count++) {
        at = lines_next(at, end, &header);
        if (at == NULL || count == max_headers)
            Py_RETURN_NONE;
        int which = lines_which(&header);
        if (which == JUDGED)
            continue;
        if (which > KEY || judged[which].name != NULL)
            Py_RETURN_NONE;
        judged[which] = header;
    }
    if (end - at < 2 || at[1] != '\n')
        Py_RETURN_NONE;
    for (int which = UPGRADE; which <= KEY; which++)
        if (judged[which].name == NULL)
            Py_RETURN_NONE;
    if (!lines_is(judged[UPGRADE].value, judged[UPGRADE].end, "websocket", 9)
        || !lines_lists(&judged[CONNECTION], "upgrade", 7)
        || !lines_is(judged[VERSION].value, judged[VERSION].end, "13", 2)
        || !lines_is_key(&judged[KEY]))
        Py_RETURN_NONE;
    char said[MOST_SAID], *to = said, accept[ACCEPT_SIZE];
    for (int which = 0; which < SAID; which++) {
        Py_ssize_t size = judged[which].end - judged[which].value;
        if (judged[which].name == NULL)
            continue;
        if (size + 2 > said + MOST_SAID - to)
            Py_RETURN_NONE;
        *to++ = (char)('0' + which);
        memcpy(to, judged[which].value, (size_t)size);
        to += size;
        *to++ = '\n';
    }
    sha1_accept(judged[KEY].value, accept);
    const char *path_end = memchr(line.target, '?', (size_t)(line.target_end - line.target));
    PyObject *size = PyLong_FromSsize_t(at + 2 - start);
    PyObject *path = lines_text(line.target, path_end != NULL ? path_end : line.target_end, 0);
    PyObject *accept_key = PyBytes_FromStringAndSize(accept, ACCEPT_SIZE);
    PyObject *others = PyBytes_FromStringAndSize(said, to - said);
    PyObject *cut = size && path && accept_key && others
                  ? PyTuple_Pack(4, size, path, accept_key, others) : NULL;
    Py_XDECREF(size);
    Py_XDECREF(path);
    Py_XDECREF(accept_key);
    Py_XDECREF(others);
    return cut;
}

#endif
