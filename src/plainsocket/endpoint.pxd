from plainsocket.carriers cimport calls
from plainsocket.flag cimport flag

cdef class Runner:
    cdef object _dispatcher
    cdef object _endpoint
    cdef flag _has_ended
    cdef flag _has_failed
    cdef flag _is_busy
    cdef flag _is_closed
    cdef flag _is_open
    cdef flag _wake_again

    cpdef wake(self)
