"""What edgepack costs, measured: `make bench`.

Figures are printed, never asserted; a busy machine moves wall times, so CPU seconds stand beside them.
"""
