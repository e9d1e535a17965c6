from plainsocket.carriers cimport calls

cdef class Workers:
    cdef object _on_free
    cdef object _hub
    cdef readonly set running
    cdef bint _is_starting
    cdef bint _is_over
    cdef list _done
    cdef readonly list _parked

    cpdef start(self, job)
    cdef _free_worker(self)
    cpdef finish(self, worker)
    cpdef park(self, worker)
    cpdef _collect(self)
