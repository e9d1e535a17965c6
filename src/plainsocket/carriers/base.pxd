from plainsocket.flag cimport flag

cdef class Receiver:
    cpdef data_received(self, bytes data)
    cpdef eof_received(self)
    cpdef write_progressed(self)
    cpdef carrier_closed(self)

cdef class Carrier:
    cdef public Py_ssize_t buffered
    cdef public Py_ssize_t bytes_accepted
    cdef public flag broken
    cdef public flag closed

    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef cork(self)
    cpdef uncork(self)
    cpdef write_frame(self, bytes frame)
    cpdef write(self, frames)
    cpdef write_control(self, bytes frame)
    cpdef flush(self)
    cpdef Py_ssize_t unacknowledged(self)
    cpdef Py_ssize_t unread(self)
