"""The HTTP server: sockets, requests, and the short way of a small one to its answer."""
