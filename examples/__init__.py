"""Projects to learn from, and the demo."""
