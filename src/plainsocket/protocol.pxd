from plainsocket cimport wire

cdef class Protocol:
    cdef readonly bytes _close_frame
    cdef readonly bint _compressed
    cdef readonly bytes _control
    cdef readonly object _decoder
    cdef readonly Py_ssize_t _deflate_from
    cdef readonly object _deflater
    cdef readonly bint _dropped
    cdef readonly tuple _due
    cdef readonly Py_ssize_t _fragments
    cdef readonly object _frame
    cdef readonly Py_ssize_t _inflated
    cdef readonly object _inflater
    cdef readonly bint _is_masked
    cdef readonly object _kind
    cdef readonly object _large
    cdef readonly Py_ssize_t _max_fragments
    cdef readonly Py_ssize_t _max_message_size
    cdef readonly object _message
    cdef readonly object _piece_opcode
    cdef readonly object _piece_rsv
    cdef readonly object _pings
    cdef readonly list pings_due
    cdef readonly bytes _rest
    cdef readonly object _seen
    cdef readonly object _size
    cdef readonly Py_ssize_t _stream_limit
    cdef readonly bint _stream_next
    cdef readonly bint _streams
    cdef readonly Py_ssize_t _yield
    cdef readonly object close_code
    cdef readonly object close_reason
    cdef readonly object close_sent
    cdef readonly bint end_is_due
    cdef readonly bint failed
    cdef readonly bint holding
    cdef readonly bint holds_long
    cdef readonly bint is_client
    cdef public bint may_hold_long
    cdef readonly bint message_begun
    cdef readonly list pieces
    cdef readonly list pongs
    cdef readonly object state
    cdef public bint stream_ended
    cdef readonly object stream_kind
    cdef readonly object to_skip

    cpdef list receive(self, bytes data)
    cdef _read(self, bytes data, list messages)
    cdef Py_ssize_t _read_whole(self, bytes data, Py_ssize_t position, Py_ssize_t end, list messages) except -1
    cpdef bytes send_whole(self, message)
    cpdef list send(self, message)
    cpdef list take_pongs(self)
