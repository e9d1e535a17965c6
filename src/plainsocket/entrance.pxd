from plainsocket.carriers cimport calls
from plainsocket.carriers.descriptor cimport Descriptor

cdef class Entrance:
    cdef readonly object house
    cdef readonly object options
    cdef readonly object idle
    cdef readonly object make_environ
    cdef readonly object precedents
    cdef readonly object timers
    cdef readonly object _hub
    cdef readonly double _batch_time
    cdef readonly double _timeout

    cpdef accept(self, listener)
    cpdef receive(self, sock, address, double deadline)

cdef class Arrival:
    cdef readonly Entrance _entrance
    cdef readonly object _socket
    cdef readonly object _address
    cdef readonly double _deadline
    cdef readonly object _watcher
    cdef public Py_ssize_t timer_slot

    cpdef look(self)
    cpdef abort(self)
    cdef _wait(self)
    cdef _stop_waiting(self)
