from plainsocket.carriers cimport calls
from plainsocket.carriers.base cimport Carrier, Receiver
from plainsocket.flag cimport flag
from plainsocket.protocol cimport Protocol
from plainsocket.timers cimport TimerWheel

cdef Py_ssize_t _STALL_SIZE

cdef class Common:
    cdef public double batch_end
    cdef readonly double batch_time
    cdef public double cork_end
    cdef public object delivering
    cdef readonly object hub
    cdef readonly object options
    cdef readonly Py_ssize_t read_limit
    cdef public double sent_at
    cdef readonly unsigned long thread
    cdef readonly TimerWheel timers
    cdef readonly Py_ssize_t write_limit

cdef class _Due:
    cdef public Py_ssize_t acknowledged
    cdef public object close
    cdef public object compressor_look
    cdef public double looked_at
    cdef public tuple message
    cdef public tuple stall

    cdef bint is_nothing(self)

cdef class Deadlines(Receiver):
    cdef readonly Carrier _carrier
    cdef readonly Common _common
    cdef _Due _due
    cdef readonly double _ping_sent
    cdef readonly object _pings_written
    cdef readonly Protocol _protocol
    cdef readonly double _sign_of_life
    cdef readonly Py_ssize_t bytes_received
    cdef readonly Py_ssize_t messages_received
    cdef public Py_ssize_t timer_slot
    cdef public int timer_place
    cdef readonly int _pings_sent
    cdef readonly flag _grace_used
    cdef readonly flag _paused

    cdef _Due _dues(self)
    cdef _set_timer(self, double when)
    cdef _watch_for_stall(self)
    cdef _mark_message(self, double now)
