from plainsocket.carriers cimport calls
from plainsocket.carriers.base cimport Carrier, Receiver
from plainsocket.flag cimport flag
from plainsocket.protocol cimport Protocol

cdef Py_ssize_t _STALL_SIZE

cdef class Deadlines(Receiver):
    cdef readonly Py_ssize_t _acknowledged
    cdef readonly Carrier _carrier
    cdef readonly object _close_deadline
    cdef readonly object _compressor_look
    cdef readonly double _looked_at
    cdef readonly object _message_mark
    cdef readonly object _options
    cdef readonly object _ping_sent
    cdef readonly Py_ssize_t _pings_sent
    cdef readonly object _pings_written
    cdef readonly Protocol _protocol
    cdef readonly double _sign_of_life
    cdef readonly object _stall
    cdef readonly object _timers
    cdef readonly Py_ssize_t bytes_received
    cdef readonly Py_ssize_t messages_received
    cdef public Py_ssize_t timer_slot
    cdef readonly flag _grace_used
    cdef readonly flag _paused

    cdef _watch_for_stall(self)
