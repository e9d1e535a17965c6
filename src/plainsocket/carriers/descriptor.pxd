from plainsocket.carriers cimport calls

cdef class Descriptor:
    cdef int _fd
    cdef readonly int family
    cdef readonly int type
    cdef readonly int proto

    cpdef int fileno(self)
    cpdef close(self)
