from plainsocket cimport lines
from plainsocket.carriers cimport calls
from plainsocket.handshake cimport Precedent, Precedents
from plainsocket.routed cimport Routed
from plainsocket.websocket cimport WebSocket

cdef class Desk:
    cdef readonly object common
    cdef readonly object make_environ
    cdef readonly object options
    cdef readonly Precedents precedents
    cdef readonly object server

cdef class Kept:
    cdef readonly object _address
    cdef readonly long long _peer
    cdef readonly object compression
    cdef readonly Desk desk
    cdef readonly bytes head
    cdef readonly object subprotocol

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

cdef tuple _read_plain(bytes data, options)
cdef tuple _read_any(bytes data, options)
cdef str _decoded(str path)

cpdef read_visit(Desk desk, bytes data, sock, long long peer, address, double deadline)
