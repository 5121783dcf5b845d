"""Pure rules of the protocols: no I/O, no clock, no randomness."""
