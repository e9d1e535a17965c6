from plainsocket cimport wire
from plainsocket.carriers cimport calls
from plainsocket.carriers.base cimport Carrier, Receiver
from plainsocket.protocol cimport Protocol, SharedMessage
from plainsocket.flag cimport flag

cdef Py_ssize_t _MESSAGE_COST
cdef Py_ssize_t _CORK_SIZE
cdef Py_ssize_t _STALL_SIZE
cdef double _CORK_TIME

cdef class WebSocket(Receiver):
    cdef object __weakref__
    cdef readonly Py_ssize_t _acknowledged
    cdef readonly double _batch_end
    cdef readonly double _batch_time
    cdef readonly Carrier _carrier
    cdef readonly object _close_deadline
    cdef readonly object _compressor_look
    cdef readonly double _cork_end
    cdef readonly object _endpoint
    cdef readonly object _gone
    cdef readonly object _hub
    cdef readonly double _looked_at
    cdef readonly object _message_mark
    cdef readonly list _messages
    cdef readonly Py_ssize_t _messages_size
    cdef readonly Py_ssize_t _next
    cdef readonly object _options
    cdef readonly object _ping_sent
    cdef readonly object _ping_waiters
    cdef readonly Py_ssize_t _pings_sent
    cdef readonly object _pings_written
    cdef readonly Protocol _protocol
    cdef readonly Py_ssize_t _read_limit
    cdef readonly object _receiver
    cdef readonly object _request
    cdef readonly list _senders
    cdef readonly double _sent_at
    cdef readonly double _sign_of_life
    cdef readonly object _stall
    cdef readonly object _stream
    cdef readonly object _streamer
    cdef readonly unsigned long _thread
    cdef readonly object _timers
    cdef readonly Py_ssize_t _write_limit
    cdef readonly Py_ssize_t bytes_received
    cdef readonly object latency
    cdef readonly Py_ssize_t messages_received
    cdef readonly Py_ssize_t messages_sent
    cdef readonly double opened_at
    cdef public Py_ssize_t timer_slot
    cdef readonly flag _delivering
    cdef readonly flag _deliver_scheduled
    cdef readonly flag _discarding
    cdef readonly flag _flush_due
    cdef readonly flag _grace_used
    cdef readonly flag _paused
    cdef readonly flag _sender_scheduled

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
    cdef _watch_for_stall(self)
