"""The child's side of a worker: put on the path of worker processes alone. Standard library and numpy, Python 3.9 on.

`edgepack_worker` is ours; `mac` and `wallaroo` are the names that users' code imports.
"""
