"""The http carrier's records and requests: carriers/records.py, carriers/posts.py."""

from fuzzing import fuzz

if __name__ == "__main__":
    fuzz("carrier")
