"""Configurations that users' code is given."""
