"""What runs inside a worker process: it binds itself, loads user-made code, and answers over one socket.

Nothing here imports edgepack: the interpreter may be that of any environment.
"""
