"""What the hub knows, in one SQLite database: tables, migrations, and the questions asked of them.

Functions take a connection of `Database.read()` or `Database.write()`; what must happen together happens in one
`write()`.
"""

from hub.store.database import Database

__all__ = ["Database"]
