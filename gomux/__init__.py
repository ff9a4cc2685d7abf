"""
gomux for Twisted: many duplex streams over one encrypted connection.
"""
