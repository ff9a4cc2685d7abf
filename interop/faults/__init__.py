"""
What the tests of faults and abuse are made of, and the matrix of their results.
"""
