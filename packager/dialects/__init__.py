"""Projects as other systems lay them out, packaged as they are: one module a system."""
