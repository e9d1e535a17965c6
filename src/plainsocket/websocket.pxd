from plainsocket cimport wire
from plainsocket.carriers cimport calls
from plainsocket.carriers.base cimport Carrier
from plainsocket.deadlines cimport Common, Deadlines
from plainsocket.protocol cimport Protocol, SharedMessage
from plainsocket.flag cimport flag

cdef Py_ssize_t _MESSAGE_COST
cdef Py_ssize_t _CORK_SIZE
cdef double _CORK_TIME

cdef class WebSocket(Deadlines):
    cdef object __weakref__
    cdef readonly object _endpoint
    cdef readonly object _gone
    cdef readonly list _messages
    cdef readonly Py_ssize_t _messages_size
    cdef readonly object _ping_waiters
    cdef readonly object _receiver
    cdef readonly object _request
    cdef readonly list _senders
    cdef readonly object _stream
    cdef readonly object _streamer
    cdef readonly Py_ssize_t messages_sent
    cdef readonly double _latency
    cdef readonly double opened_at
    cdef readonly int _next
    cdef public int place
    cdef readonly flag _deliver_scheduled
    cdef readonly flag _discarding
    cdef readonly flag _flush_due
    cdef readonly flag _sender_scheduled
    cdef public flag is_kept

    cpdef start(self, sock, bytes early=*, bytes head=*)
    cpdef begin_batch(self)
    cpdef end_batch(self)
    cpdef bint has_messages(self)
    cpdef bint queue_shared(self, SharedMessage message) except -1
    cdef bint _has_something(self) except -1
    cdef _take_pieces(self, stream)
    cdef bint _may_take(self)
    cdef _take(self)
    cdef _take_in(self, list messages)
    cdef bint _wait_for_message(self, timeout) except -1
    cdef _check_not_in_hub(self)
    cdef _schedule_next_sender(self)
    cdef _check_thread(self)
    cdef _deliver(self)
