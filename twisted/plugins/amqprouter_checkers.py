"""The credentials checkers of amqprouter, for strcred."""

from amqprouter.auth.checkers.anonymous import AnonymousCheckerFactory
from amqprouter.auth.checkers.file_factory import FileCheckerFactory
from amqprouter.auth.checkers.http_factory import HttpCheckerFactory
from amqprouter.auth.checkers.jwt_factory import JwtCheckerFactory
from amqprouter.auth.checkers.mongo_factory import MongoCheckerFactory

anonymous_checker = AnonymousCheckerFactory()
file_checker = FileCheckerFactory()
http_checker = HttpCheckerFactory("http")
https_checker = HttpCheckerFactory("https")
mongo_checker = MongoCheckerFactory()
jwt_checker = JwtCheckerFactory()
