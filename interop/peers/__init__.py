"""
Peer programs, which all speak the gomux wire and take the same command line: see
README.rst.

The modules C{blocking_*} and C{peerlib} share no code with L{gomux}.
"""
