"""What an agent tells of itself: events, metrics, traces."""
