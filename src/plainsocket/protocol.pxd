cimport cython

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

@cython.freelist(8)
cdef class _Part:
    cdef public bytes rest
    cdef public object frame
    cdef public object seen
    cdef public object large
    cdef public bytes control
    cdef public object kind
    cdef public object message
    cdef public object size
    cdef public Py_ssize_t fragments
    cdef public object decoder
    cdef public flag compressed
    cdef public Py_ssize_t inflated

cdef class _Stream:
    cdef public Py_ssize_t limit
    cdef public flag is_next
    cdef public flag lives
    cdef public flag dropped
    cdef public int kind
    cdef public list pieces
    cdef public flag ended

cdef class _Ending:
    cdef public tuple due
    cdef public object code
    cdef public object reason
    cdef public tuple sent
    cdef public bytes frame
    cdef public object to_skip

cdef class Protocol:
    cdef readonly object _deflater
    cdef _Ending _ending
    cdef readonly object _inflater
    cdef readonly Py_ssize_t _max_fragments
    cdef readonly Py_ssize_t _max_message_size
    cdef _Part _part
    cdef readonly object _pings
    cdef _Stream _stream
    cdef readonly Py_ssize_t _yield
    cdef readonly list pings_due
    cdef readonly list pongs
    cdef readonly object state
    cdef readonly flag _is_masked
    cdef unsigned char _piece_opcode
    cdef unsigned char _piece_rsv
    cdef readonly flag end_is_due
    cdef readonly flag failed
    cdef readonly flag holding
    cdef readonly flag holds_long
    cdef readonly flag is_client
    cdef public flag may_hold_long
    cdef readonly flag message_begun

    cpdef list receive(self, bytes data)
    cdef _read(self, bytes data, list messages)
    cdef _forget_whole(self)
    cdef _Ending _ends(self)
    cdef _begin_frame(self, _Part part, frame)
    cdef _end_message(self, _Part part, list messages)
    cdef _end_control_frame(self, _Part part, int opcode)
    cdef Py_ssize_t _read_whole(self, bytes data, Py_ssize_t position, Py_ssize_t end, list messages) except -1
    cpdef room(self)
    cpdef list receive_placed(self, Py_ssize_t size)
    cpdef bytes send_whole(self, message)
    cpdef Py_ssize_t put_whole(self, bytearray room, Py_ssize_t place, message) except -1
    cpdef list send(self, message)
    cpdef bytes shared_whole(self, SharedMessage message)
    cpdef list take_pongs(self)
