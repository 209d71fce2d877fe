"""A campaign of faults: ``make test-faults``.  See ``__main__``."""
