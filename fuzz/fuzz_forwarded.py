"""Who the client is behind proxies: forwarded.py."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("forwarded")
