cdef class Host:
    pass
