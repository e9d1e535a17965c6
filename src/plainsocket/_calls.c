/* The system calls of the tcp carrier, on non-blocking sockets.
 *
 * The same functions stand in carriers/calls.py in Python, for where no compiler was. None of them
 * waits, so they keep the GIL; that is also why one buffer does for all reads.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define READ_SIZE (64 * 1024)
#define MOST_BUFFERS 64

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static char read_buffer[READ_SIZE];

static int
would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

PyDoc_STRVAR(read_doc,
"read(fd) -> bytes or None\n\n"
"What has come, up to 64 KiB; b\"\" at the end; None if nothing has. Raises OSError.");

static PyObject *
call_read(PyObject *module, PyObject *argument)
{
    int fd = PyObject_AsFileDescriptor(argument);
    if (fd < 0)
        return NULL;
    ssize_t size = recv(fd, read_buffer, READ_SIZE, MSG_DONTWAIT);
    if (size >= 0)
        return PyBytes_FromStringAndSize(read_buffer, size);
    if (would_block())
        Py_RETURN_NONE;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *
sent(ssize_t size)
{
    if (size < 0) {
        if (!would_block())
            return PyErr_SetFromErrno(PyExc_OSError);
        size = -1;
    }
    return PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(write_doc,
"write(fd, data) -> int\n\n"
"Write what the socket takes of data; return how much, or -1 for nothing. Raises OSError.");

static PyObject *
call_write(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer data;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "write takes a descriptor and bytes");
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(arguments[0]);
    if (fd < 0 || PyObject_GetBuffer(arguments[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    ssize_t size = send(fd, data.buf, (size_t)data.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    PyBuffer_Release(&data);
    return sent(size);
}

PyDoc_STRVAR(write_many_doc,
"write_many(fd, buffers) -> int\n\n"
"The same for a list of at most 64 buffers, one behind the other.");

static PyObject *
call_write_many(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyList_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "write_many takes a descriptor and a list");
        return NULL;
    }
    int fd = PyObject_AsFileDescriptor(arguments[0]);
    if (fd < 0)
        return NULL;
    Py_ssize_t length = PyList_GET_SIZE(arguments[1]);
    if (length > MOST_BUFFERS) {
        PyErr_SetString(PyExc_ValueError, "at most 64 buffers");
        return NULL;
    }
    Py_buffer buffers[MOST_BUFFERS];
    struct iovec parts[MOST_BUFFERS];
    Py_ssize_t have = 0;
    PyObject *result = NULL;
    for (; have < length; have++) {
        PyObject *item = PyList_GET_ITEM(arguments[1], have);
        if (PyObject_GetBuffer(item, &buffers[have], PyBUF_SIMPLE) < 0)
            goto done;
        parts[have].iov_base = buffers[have].buf;
        parts[have].iov_len = (size_t)buffers[have].len;
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)length};
    result = sent(sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
done:
    while (have > 0)
        PyBuffer_Release(&buffers[--have]);
    return result;
}

static PyMethodDef methods[] = {
    {"read", call_read, METH_O, read_doc},
    {"write", (PyCFunction)(void (*)(void))call_write, METH_FASTCALL, write_doc},
    {"write_many", (PyCFunction)(void (*)(void))call_write_many, METH_FASTCALL, write_many_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "plainsocket._calls",
    .m_doc = "System calls on non-blocking sockets.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__calls(void)
{
    return PyModuleDef_Init(&definition);
}
