# To compiled modules the functions of lines.py are those of lines.h.
cdef extern from "lines.h":
    object cut_lines "lines_cut" (bytes data)
    object cut_plain "lines_cut_plain" (bytes data)
    object cut_upgrade "lines_cut_upgrade" (bytes data, Py_ssize_t max_headers)
