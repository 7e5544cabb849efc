"""The fleet: API, registry, log store and web page of the hub. It runs no model and sees neither packager nor agent.

`Hub` owns the data folder; `create_app` makes the WSGI application over it; `Server` runs that on a socket,
`run_hub` all of it as a program.
"""
