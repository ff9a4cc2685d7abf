"""
Programs that speak the gomux wire and take the same command line: see README.rst.

The C{blocking} ones share no code with L{gomux}.
"""
