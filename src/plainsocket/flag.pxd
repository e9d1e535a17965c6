# A bool of one byte: an attribute of type bint takes four, and connections have thirty such.
cdef extern from *:
    ctypedef bint flag "_Bool"
