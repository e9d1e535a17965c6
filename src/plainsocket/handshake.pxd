cdef class Precedents:
    cdef readonly bint are_kept
    cdef readonly dict _answers
    cdef list _lists

    cpdef find(self, bytes said)

cdef class Precedent:
    cdef bytes _before
    cdef bytes _after
    cdef readonly object subprotocol
    cdef readonly object compression

    cpdef bytes head(self, bytes accept)
