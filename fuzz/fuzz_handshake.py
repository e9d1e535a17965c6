"""The opening request: head.py, handshake.py."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("handshake")
