"""The command line: ``main`` dispatches, one file a verb."""
