from plainsocket cimport wire
from plainsocket.flag cimport flag

cdef Py_ssize_t _FRAMES_AT_ONCE

cdef class SharedMessage:
    cdef readonly dict frames
    cdef readonly object message
    cdef readonly object opcode
    cdef readonly bytes payload
    cdef readonly Py_ssize_t size
    cdef readonly bytes whole

cdef class Protocol:
    cdef readonly bytes _close_frame
    cdef readonly bytes _control
    cdef readonly object _decoder
    cdef readonly Py_ssize_t _deflate_from
    cdef readonly object _deflater
    cdef readonly tuple _due
    cdef readonly Py_ssize_t _fragments
    cdef readonly object _frame
    cdef readonly Py_ssize_t _inflated
    cdef readonly object _inflater
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
    cdef readonly Py_ssize_t _yield
    cdef readonly object close_code
    cdef readonly object close_reason
    cdef readonly object close_sent
    cdef readonly list pieces
    cdef readonly list pongs
    cdef readonly object state
    cdef readonly object stream_kind
    cdef readonly object to_skip
    cdef readonly flag _compressed
    cdef readonly flag _dropped
    cdef readonly flag _is_masked
    cdef readonly flag _stream_next
    cdef readonly flag _streams
    cdef readonly flag end_is_due
    cdef readonly flag failed
    cdef readonly flag holding
    cdef readonly flag holds_long
    cdef readonly flag is_client
    cdef public flag may_hold_long
    cdef readonly flag message_begun
    cdef public flag stream_ended

    cpdef list receive(self, bytes data)
    cdef _read(self, bytes data, list messages)
    cdef Py_ssize_t _read_whole(self, bytes data, Py_ssize_t position, Py_ssize_t end, list messages) except -1
    cpdef room(self)
    cpdef list receive_placed(self, Py_ssize_t size)
    cpdef bytes send_whole(self, message)
    cpdef Py_ssize_t put_whole(self, bytearray room, Py_ssize_t place, message) except -1
    cpdef list send(self, message)
    cpdef bytes shared_whole(self, SharedMessage message)
    cpdef list take_pongs(self)
