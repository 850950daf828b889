"""Makes twistd find the checker."""

from amqprouter_sqlite.factory import SqliteCheckerFactory

sqlite_checker = SqliteCheckerFactory()
