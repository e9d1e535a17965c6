"""Frames and the protocol, in either role: frames.py, protocol.py."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("protocol")
