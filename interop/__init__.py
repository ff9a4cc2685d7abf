"""
Live tests against other implementations of the gomux wire. See README.rst.
"""
