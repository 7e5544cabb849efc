"""The page of the hub: devices, pipelines, newest rows. Rendered here, no script, nothing loaded from elsewhere."""

from hub.web.routes import make_web

__all__ = ["make_web"]
