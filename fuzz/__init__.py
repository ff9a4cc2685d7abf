"""
Fuzzing: C{python -m fuzz TARGET --seconds N}, see L{fuzz.__main__}.
"""
