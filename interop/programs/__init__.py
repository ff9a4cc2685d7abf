"""
Programs from the package index, unmodified, over gomux.  They are in an environment of
their own, with the versions in C{requirements.txt}.
"""
