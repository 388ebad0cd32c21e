"""This process among others: its files, standard descriptors, signals and cache. A leaf."""
