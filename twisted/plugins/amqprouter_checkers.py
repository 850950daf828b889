"""The credentials checkers of amqprouter, for strcred."""

from amqprouter.auth.anonymous_factory import AnonymousCheckerFactory
from amqprouter.auth.file_factory import FileCheckerFactory
from amqprouter.auth.http_factory import HttpCheckerFactory
from amqprouter.auth.jwt_factory import JwtCheckerFactory
from amqprouter.auth.mongo_factory import MongoCheckerFactory

anonymous_checker = AnonymousCheckerFactory()
file_checker = FileCheckerFactory()
http_checker = HttpCheckerFactory("http")
https_checker = HttpCheckerFactory("https")
mongo_checker = MongoCheckerFactory()
jwt_checker = JwtCheckerFactory()
