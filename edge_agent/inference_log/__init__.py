"""The inference log of a pipeline, from a row to what travels home."""
