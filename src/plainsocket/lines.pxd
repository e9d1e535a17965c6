# To compiled modules the function of lines.py is that of lines.h.
cdef extern from "lines.h":
    object cut_lines "lines_cut" (bytes data)
