from plainsocket.opening cimport Host

cdef class Routed(Host):
    cdef public object reserved
