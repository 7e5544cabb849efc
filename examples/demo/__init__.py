"""The main job, done for real on one machine: `make demo`."""
