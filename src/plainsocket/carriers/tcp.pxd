cimport cython

from plainsocket.carriers cimport calls
from plainsocket.carriers.base cimport Carrier, Receiver
from plainsocket.flag cimport flag

cdef Py_ssize_t _BATCH_SIZE
cdef double _COMPANY_TIME
cdef Py_ssize_t _FLUSH_SIZE
cdef Py_ssize_t _JOIN_BELOW
cdef Py_ssize_t _MUCH
cdef Py_ssize_t _RECORD

cdef class _Outbox:
    cdef readonly bytearray room
    cdef readonly list waiting
    cdef readonly list _ends
    cdef readonly double until
    cdef readonly TcpCarrier owner
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t size

    cdef keep(self)
    @cython.locals(
        owner=TcpCarrier, owner_start=Py_ssize_t, owner_size=Py_ssize_t, start=Py_ssize_t,
        carrier=TcpCarrier, end=Py_ssize_t, number=Py_ssize_t)
    cdef let_go(self)

cdef class _Turn:
    cdef readonly list _carriers
    cdef readonly object _check
    cdef readonly object hub
    cdef readonly bint is_reading
    cdef readonly _Outbox outbox

    cdef add(self, TcpCarrier carrier)

cdef class TcpCarrier(Carrier):
    cdef readonly list _batch
    cdef readonly list _control
    cdef readonly int _fd
    cdef readonly list _frames
    cdef readonly object _read_watcher
    cdef readonly Receiver _receiver
    cdef readonly object _socket
    cdef readonly object _tls
    cdef readonly _Turn _turn
    cdef readonly object _write_watcher
    cdef readonly flag _corked
    cdef readonly flag _ending
    cdef readonly flag _eof
    cdef readonly flag _linger
    cdef readonly flag _half_closed
    cdef readonly flag _much
    cdef readonly flag _reading
    cdef readonly flag _writing

    cpdef _start_reading(self, bytes early=*)
    cpdef _close_socket(self)
    cpdef read(self)
    cdef leave(self)
    cdef _read_to(self, room)
    cdef _read_records(self)
    cdef _take(self, bytes data)
    cdef _account(self, Py_ssize_t size)
    cdef _drop_queue(self)
    cdef _write_outbox(self)
    cdef _leave_outbox(self)
    cdef bint _next_batch(self) except -1
    cdef bint _write_batch(self) except -1
    cdef _wait_writable(self)
