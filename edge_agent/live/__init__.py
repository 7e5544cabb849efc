"""Models that change where they lie while they are served."""
