"""On the device: reconcile, fetch, activate, log, sync, serve. Importing this loads nothing heavy."""
