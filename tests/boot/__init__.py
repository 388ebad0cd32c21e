"""Whole boots of Debian's kernels, through the command line, as a user would."""
