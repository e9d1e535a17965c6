"""gunicorn's worker, under the path that command lines name."""
