"""Runs inside a pinned environment, in a sandboxed child: loads an artefact, makes rows, converts.

Only the standard library and what that environment holds may be imported here, and nothing of edgepack: the child has
no other room on its path. The code keeps to what Python 3.8 reads, because old artefacts need old interpreters.
"""
