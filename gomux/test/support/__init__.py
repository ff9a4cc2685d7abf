"""
Helpers that the tests share.

Recording protocols, a mux whose peer sends single frames, sessions in memory, doubles
of sockets and of the log, the recordings of the Go reference, and the fuzzer's
targets.  A test module imports from here and never from another test module.
"""
