# To compiled modules the functions of calls.py are those of calls.h.
cdef extern from "calls.h":
    enum:
        READ_SIZE
        MOST_BUFFERS

    int accept "calls_accept" (int fd) except -2
    long long peer "calls_peer" ()
    object ipv4_address "calls_ipv4_address" (long long peer)
    object read "calls_read" (int fd, bint much)
    Py_ssize_t read_into "calls_read_into" (int fd, object room) except -2
    object read_little "calls_read_little" (int fd, Py_ssize_t size)
    void close "calls_close" (int fd)
    Py_ssize_t write "calls_write" (int fd, object data) except -2
    Py_ssize_t write_part "calls_write_part" (
        int fd, bytearray data, Py_ssize_t start, Py_ssize_t end) except -2
    Py_ssize_t write_many "calls_write_many" (int fd, list buffers) except -2
    double monotonic "calls_monotonic" ()
    unsigned long this_thread "calls_this_thread" ()
    object current "calls_current" ()
    object switch "calls_switch" (object greenlet)
    void begin_small "calls_begin_small" ()
