"""Empty, for users' code that imports a module of this name and needs nothing of it while it answers."""
