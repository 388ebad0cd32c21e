"""The base instructions: integers, branches, exceptions, system registers."""
