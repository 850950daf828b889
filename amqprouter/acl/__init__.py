"""Access lists: who may say, and see, which topic; pure.

`acl` is a whole one, made of lines (`line`), their patterns (`topic`) and `groups`; `registry` has the lines that a
checker tells of one device. `amqprouter.auth.acl_file` reads the file.
"""
