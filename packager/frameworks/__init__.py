"""What a model was made with: one module a framework, each of which inspects a file without executing it."""
