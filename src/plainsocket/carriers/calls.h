/* The C twins of calls.py: system calls and greenlet switches.
 *
 * None of the calls waits, so they keep the GIL; that is also why one buffer does for all reads.
 */
#ifndef PLAINSOCKET_CALLS_H
#define PLAINSOCKET_CALLS_H

#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <greenlet/greenlet.h>

#define READ_SIZE (64 * 1024)
#define MOST_BUFFERS 64

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static int
calls_would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static long long calls_accepted_peer;

static int
calls_accept(int fd)
{
    struct sockaddr_in from = {0};
    socklen_t size = sizeof from;
    int accepted;
#ifdef SOCK_NONBLOCK
    accepted = accept4(fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    accepted = accept(fd, (struct sockaddr *)&from, &size);
    if (accepted >= 0) {
        fcntl(accepted, F_SETFD, FD_CLOEXEC);
        fcntl(accepted, F_SETFL, fcntl(accepted, F_GETFL) | O_NONBLOCK);
    }
#endif
    if (accepted < 0 && !calls_would_block()) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -2;
    }
    calls_accepted_peer = (long long)ntohl(from.sin_addr.s_addr) << 16 | ntohs(from.sin_port);
    return accepted;
}

static inline long long
calls_peer(void)
{
    return calls_accepted_peer;
}

static PyObject *
calls_ipv4_address(long long peer)
{
    char host[16];
    snprintf(host, sizeof host, "%d.%d.%d.%d", (int)(peer >> 40 & 255), (int)(peer >> 32 & 255),
             (int)(peer >> 24 & 255), (int)(peer >> 16 & 255));
    return Py_BuildValue("si", host, (int)(peer & 0xffff));
}

static char calls_buffer[READ_SIZE];

/* After a recv of `size` bytes to `data`, or to the buffer if that is NULL. */
static PyObject *
calls_received(ssize_t size, PyObject *data)
{
    if (size >= 0) {
        if (data == NULL)
            return PyBytes_FromStringAndSize(calls_buffer, size);
        _PyBytes_Resize(&data, size);
        return data;
    }
    Py_XDECREF(data);
    if (calls_would_block())
        Py_RETURN_NONE;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* Much is best read to where it stays, little is cheaper to copy than such a place to allocate. */
static PyObject *
calls_read(int fd, int much)
{
    PyObject *data = NULL;
    if (much && (data = PyBytes_FromStringAndSize(NULL, READ_SIZE)) == NULL)
        return NULL;
    void *place = much ? PyBytes_AS_STRING(data) : calls_buffer;
    return calls_received(recv(fd, place, READ_SIZE, MSG_DONTWAIT), data);
}

static PyObject *
calls_read_little(int fd, Py_ssize_t size)
{
    size = size < READ_SIZE ? size : READ_SIZE;
    return calls_received(recv(fd, calls_buffer, (size_t)size, MSG_DONTWAIT), NULL);
}

static inline void
calls_close(int fd)
{
    close(fd);
}

/* How much was moved; -1 where it would block, -2 with an exception set. */
static Py_ssize_t
calls_moved(ssize_t size)
{
    if (size >= 0)
        return size;
    if (calls_would_block())
        return -1;
    PyErr_SetFromErrno(PyExc_OSError);
    return -2;
}

static Py_ssize_t
calls_read_into(int fd, PyObject *room)
{
    Py_buffer view;
    if (PyObject_GetBuffer(room, &view, PyBUF_WRITABLE) < 0)
        return -2;
    Py_ssize_t size = calls_moved(recv(fd, view.buf, (size_t)view.len, MSG_DONTWAIT));
    PyBuffer_Release(&view);
    return size;
}

static Py_ssize_t
calls_write(int fd, PyObject *data)
{
    if (PyBytes_CheckExact(data))
        return calls_moved(send(fd, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data),
                               MSG_NOSIGNAL | MSG_DONTWAIT));
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return -2;
    Py_ssize_t size = calls_moved(send(fd, view.buf, (size_t)view.len,
                                      MSG_NOSIGNAL | MSG_DONTWAIT));
    PyBuffer_Release(&view);
    return size;
}

static Py_ssize_t
calls_write_part(int fd, PyObject *data, Py_ssize_t start, Py_ssize_t end)
{
    if (!PyByteArray_Check(data) || start < 0 || end < start || end > PyByteArray_GET_SIZE(data)) {
        PyErr_SetString(PyExc_IndexError, "not so many bytes");
        return -2;
    }
    return calls_moved(send(fd, PyByteArray_AS_STRING(data) + start, (size_t)(end - start),
                           MSG_NOSIGNAL | MSG_DONTWAIT));
}

static Py_ssize_t
calls_write_many(int fd, PyObject *list)
{
    Py_ssize_t length = PyList_GET_SIZE(list), have = 0, size = -2;
    if (length > MOST_BUFFERS) {
        PyErr_SetString(PyExc_ValueError, "at most 64 buffers");
        return -2;
    }
    Py_buffer views[MOST_BUFFERS];
    struct iovec parts[MOST_BUFFERS];
    for (; have < length; have++) {
        if (PyObject_GetBuffer(PyList_GET_ITEM(list, have), &views[have], PyBUF_SIMPLE) < 0)
            goto done;
        parts[have].iov_base = views[have].buf;
        parts[have].iov_len = (size_t)views[have].len;
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)length};
    size = calls_moved(sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
done:
    while (have > 0)
        PyBuffer_Release(&views[--have]);
    return size;
}

static inline double
calls_monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline unsigned long
calls_this_thread(void)
{
    return PyThread_get_thread_ident();
}

/* CPython maps 16 KiB for the first Python frames of each greenlet, of which a page is touched, and
 * unmaps them at the end: with the page fault that is a tenth of what a handshake costs, and that
 * page more than all else of an idle handler. So a greenlet begins with a little allocated memory
 * (CPython goes on in a new piece where a frame finds no room), and some of the large pieces are
 * kept for the next ones. All others, and the obmalloc's arenas, go where they went before. */
#define FIRST_STACK_SIZE 1024
#define STACK_SIZE (16 * 1024) /* DATA_STACK_CHUNK_SIZE in CPython's pystate.c */
#define MOST_STACKS 64

static PyObjectArenaAllocator calls_arenas;
static void *calls_stacks[MOST_STACKS];
static int calls_stack_count;
static char calls_stacks_taken; /* a lock: interpreters with a GIL of their own share all this */

static void *
calls_stack_alloc(void *context, size_t size)
{
    void *stack = NULL;
    if (size == STACK_SIZE && !__atomic_test_and_set(&calls_stacks_taken, __ATOMIC_ACQUIRE)) {
        if (calls_stack_count > 0)
            stack = calls_stacks[--calls_stack_count];
        __atomic_clear(&calls_stacks_taken, __ATOMIC_RELEASE);
    }
    return stack != NULL ? stack : calls_arenas.alloc(context, size);
}

static void
calls_stack_free(void *context, void *place, size_t size)
{
    int is_kept = 0;
    if (size == FIRST_STACK_SIZE) { /* greenlet frees those of a greenlet that has ended */
        PyMem_RawFree(place);
        return;
    }
    if (size == STACK_SIZE && !__atomic_test_and_set(&calls_stacks_taken, __ATOMIC_ACQUIRE)) {
        is_kept = calls_stack_count < MOST_STACKS;
        if (is_kept)
            calls_stacks[calls_stack_count++] = place;
        __atomic_clear(&calls_stacks_taken, __ATOMIC_RELEASE);
    }
    if (!is_kept)
        calls_arenas.free(context, place, size);
}

static void
calls_begin_small(void)
{
#if !defined(PYPY_VERSION) && PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030F0000
    PyThreadState *state = PyThreadState_Get();
    if (calls_arenas.alloc == NULL) {
        PyObject_GetArenaAllocator(&calls_arenas);
        PyObjectArenaAllocator ours = {calls_arenas.ctx, calls_stack_alloc, calls_stack_free};
        PyObject_SetArenaAllocator(&ours);
    }
    _PyStackChunk *first = state->datastack_chunk == NULL ? PyMem_RawMalloc(FIRST_STACK_SIZE) : NULL;
    if (first == NULL)
        return; /* it has begun already, or CPython may see to it */
    first->previous = NULL;
    first->size = FIRST_STACK_SIZE;
    first->top = 0;
    state->datastack_chunk = first;
    state->datastack_top = &first->data[1]; /* CPython takes a frame at 0 for a piece's first */
    state->datastack_limit = (PyObject **)((char *)first + FIRST_STACK_SIZE);
#endif
}

static int
calls_have_greenlet(void)
{
    if (_PyGreenlet_API == NULL)
        PyGreenlet_Import();
    return _PyGreenlet_API != NULL;
}

static PyObject *
calls_current(void)
{
    return calls_have_greenlet() ? (PyObject *)PyGreenlet_GetCurrent() : NULL;
}

static PyObject *
calls_switch(PyObject *greenlet)
{
    return calls_have_greenlet() ? PyGreenlet_Switch((PyGreenlet *)greenlet, NULL, NULL) : NULL;
}

#endif
