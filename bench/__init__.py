"""
Benchmarks that run this project and the Go reference in turn on the same work.
C{python -m bench --help} explains the options.
"""
