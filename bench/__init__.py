"""
Benchmarks: this project and the Go reference on the same work, in turn, in one
run.  C{python -m bench --help} says how.
"""
