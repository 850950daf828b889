"""Access lists: who may say, and see, which topic, and who may speak for whom; pure.

`acl` is a whole one, made of lines (`line`), their patterns (`topic`, or `speaking` for publishers that speak for
devices) and `groups`; `registry` has the lines that a checker tells of one device. `amqprouter.auth.acl_file` reads the
file.
"""
