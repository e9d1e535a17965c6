cdef class TimerWheel:
    cdef readonly object _hub
    cdef readonly dict _slots
    cdef readonly list _order
    cdef readonly object _timer
    cdef readonly object _next
    cdef readonly object _last

    cpdef set(self, entry, double when)
    cpdef cancel(self, entry)
    cdef _arm(self, slot)
    cdef _call(self, entry, double now)
