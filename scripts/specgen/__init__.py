"""Writes everything in spec/ that follows from the declarations: `python -m specgen`, or `make spec`."""
