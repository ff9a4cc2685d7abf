"""
Helpers that the tests share.

The helpers record calls, play the peer of a mux, connect sessions in memory, replace
sockets and the log, read the recordings of the Go reference, and hold the targets of
the fuzzer.  A test module imports helpers from here and never from another test module.
"""
