"""What device and hub say to each other: join, inventory, assignment, segment, receipt.

Structs and pure rules, no I/O.
"""
