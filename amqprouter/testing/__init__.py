"""Fakes: they pass the same contract tests as what they stand for, and are for your tests too.

A broker in memory (`amqp`), checkers (`auth`), an open gate (`gate`), parking queues (`parking`), a store (`store`).
"""
