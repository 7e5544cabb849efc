"""Stands in for the package that users' steps are written against; made from its published documentation alone."""
