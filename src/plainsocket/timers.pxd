cimport cython

cdef class TimerWheel:
    cdef readonly object _hub
    cdef readonly dict _slots
    cdef readonly list _order
    cdef readonly object _timer
    cdef readonly Py_ssize_t _next
    cdef readonly Py_ssize_t _last

    @cython.locals(slot=Py_ssize_t, entries=list)
    cpdef set(self, entry, double when)
    @cython.locals(entries=list, place=Py_ssize_t)
    cpdef cancel(self, entry)
    cdef _arm(self, Py_ssize_t slot)
    cdef _call(self, entry, double now)
