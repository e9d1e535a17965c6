from plainsocket.flag cimport flag
from plainsocket.protocol cimport Protocol

cdef class Receiver:
    cpdef data_received(self, bytes data)
    cpdef room(self)
    cpdef data_placed(self, Py_ssize_t size)
    cpdef eof_received(self)
    cpdef write_progressed(self)
    cpdef write_waits(self)
    cpdef loop_is_needed(self)
    cpdef carrier_closed(self)

cdef class Carrier:
    cdef public Py_ssize_t buffered
    cdef public Py_ssize_t bytes_accepted
    cdef public flag broken
    cdef public flag closed

    cpdef start(self, sock, bytes early=*, bytes head=*)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef cork(self)
    cpdef uncork(self)
    cpdef bint write_whole(self, Protocol _protocol, _message) except -1
    cpdef write_frame(self, bytes frame)
    cpdef write(self, frames)
    cpdef write_control(self, bytes frame)
    cpdef flush(self)
    cpdef Py_ssize_t unacknowledged(self)
    cpdef Py_ssize_t unread(self)
