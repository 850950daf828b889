"""The credentials checkers of amqprouter, for strcred."""

from amqprouter.auth.file_factory import FileCheckerFactory

file_checker = FileCheckerFactory()
