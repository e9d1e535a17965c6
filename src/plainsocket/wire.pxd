# To compiled modules the functions of wire.py are those of wire.h.
cdef extern from "wire.h":
    object apply_mask "wire_apply_mask" (object data, object key, Py_ssize_t offset)
    object unmask "wire_unmask" (bytes data, Py_ssize_t start, Py_ssize_t end)
    object unmask_text "wire_unmask_text" (bytes data, Py_ssize_t start, Py_ssize_t end)
    Py_ssize_t length "wire_length" (object message) except -1
    str decode "wire_decode" (bytes data)
    bytes encode "wire_encode" (object text)
    object whole_frame "wire_whole_frame" (object message, object key)
    Py_ssize_t put_frame "wire_put_frame" (bytearray room, Py_ssize_t place, object message, object key) except -1
    object blank "wire_blank" (Py_ssize_t size)
    int fill "wire_fill" (object blank, Py_ssize_t place, bytes data, Py_ssize_t start, Py_ssize_t end, bytes key) except -1
    object room "wire_room" (object blank, Py_ssize_t place, Py_ssize_t size)
    int placed "wire_placed" (object blank, Py_ssize_t place, Py_ssize_t size, bytes key) except -1
    bytes filled "wire_filled" (object blank)
