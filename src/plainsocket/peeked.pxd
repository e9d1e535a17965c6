from plainsocket cimport lines
from plainsocket.handshake cimport Precedent, Precedents
from plainsocket.carriers cimport calls

cdef tuple _read_plain(bytes data, options)
cdef tuple _read_any(bytes data, options)

cpdef read_request(bytes data, address, options, make_environ, Precedents precedents=*)
