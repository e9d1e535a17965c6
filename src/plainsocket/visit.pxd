from plainsocket cimport lines
from plainsocket.carriers cimport calls
from plainsocket.handshake cimport Precedent, Precedents
from plainsocket.routed cimport Routed
from plainsocket.websocket cimport WebSocket

cdef class Desk:
    cdef readonly object common
    cdef dict _heads
    cdef readonly object make_environ
    cdef readonly object options
    cdef readonly Precedents precedents
    cdef readonly object server

    cpdef SharedHead shared_head(self, bytes rest, Py_ssize_t at, Precedent precedent)

cdef class SharedHead:
    cdef readonly Py_ssize_t at
    cdef readonly Desk desk
    cdef readonly Precedent precedent
    cdef readonly bytes rest

cdef class Kept:
    cdef readonly object _address
    cdef readonly unsigned long long _key_0
    cdef readonly unsigned long long _key_1
    cdef readonly unsigned long long _key_2
    cdef readonly long long _peer
    cdef readonly SharedHead _shared

cdef class Visit(Routed):
    cdef readonly double _deadline
    cdef readonly Desk _desk
    cdef readonly Kept kept
    cdef readonly object _socket
    cdef readonly bytes answer
    cdef readonly bytes early
    cdef readonly str path
    cdef readonly object request
    cdef readonly bytes said

    cpdef run(self)
    cdef _read(self)
    cdef _start(self, WebSocket websocket, bytes head)
    cpdef enter(self, websocket)
    cpdef let_go(self, websocket)

cpdef address_of(long long peer, address)
cdef tuple _read_plain(bytes data, options)
cdef tuple _read_any(bytes data, options)
cdef str _decoded(str path)

cpdef read_visit(Desk desk, bytes data, sock, long long peer, address, double deadline)
