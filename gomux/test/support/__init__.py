"""
What the tests share and what is no test itself.

Protocols that record what happens to them, a mux with a peer that sends single
frames, sessions in memory, doubles of sockets and the log, the recordings of the
reference, and the targets of the fuzzer.  A test module imports from here and never
from another test module.
"""
