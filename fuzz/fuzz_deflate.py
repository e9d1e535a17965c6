"""Compressed messages, in either role, whole and in pieces: deflate.py, protocol.py."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("deflate")
