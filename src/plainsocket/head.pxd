from plainsocket cimport lines

cdef tuple _split_target(str method, str target)
cdef _check_host(str host, str version)
cdef bint _is_chunked(dict fields, str version) except -1
cdef _content_length(dict fields)
