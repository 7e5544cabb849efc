"""Model registries: what lies in them is listed, and fetched as the source of a project. Nothing of it is executed."""
