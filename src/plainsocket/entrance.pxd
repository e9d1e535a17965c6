from plainsocket.carriers cimport calls
from plainsocket.carriers.descriptor cimport Descriptor
from plainsocket.visit cimport Desk, address_of, read_visit
from plainsocket.workers cimport Workers

cdef class Entrance:
    cdef readonly object house
    cdef readonly Desk desk
    cdef readonly Workers workers
    cdef readonly object idle
    cdef readonly object timers
    cdef readonly object hub
    cdef readonly double _batch_time
    cdef readonly double _timeout

    cpdef accept(self, listener)
    cpdef receive(self, sock, address, double deadline)
    cdef _receive(self, sock, long long peer, address, double deadline)
    cdef bint look(self, sock, long long peer, address, double deadline) except -1

cdef class Arrival:
    cdef readonly Entrance _entrance
    cdef readonly object _socket
    cdef readonly long long _peer
    cdef readonly object _address
    cdef readonly double _deadline
    cdef readonly object _watcher
    cdef public Py_ssize_t timer_slot
    cdef public int timer_place

    cdef wait(self)
    cpdef _look(self)
    cpdef abort(self)
    cdef _stop_waiting(self)

