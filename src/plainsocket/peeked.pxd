from plainsocket cimport lines
from plainsocket.carriers cimport calls

cdef tuple _read_plain(bytes data, options)
cdef tuple _read_any(bytes data, options)
