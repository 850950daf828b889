"""Several gateway processes as one service.

`service` puts it together. `supervisor` is the service that twistd starts where ``[daemon] processes`` is more than
one: it opens what is shared, has the processes started, watches them, and ends them. `slot` is the life of one of them.
`template` forks them, out of a process in which everything is imported, and `template_link` tells it to;
`fresh_template` is such a process for the code that is on disk now. `gateway` is what each of them runs. `channel` is
how a process and the supervisor talk, `sockets` are the ports that all listen at, and `output` is where their logs
meet. `orders` is what operators may ask of all of them, `rolling` exchanges them one by one, `siblings` is what one
process may ask of the others, and `checks` is what is wrong with a number of processes on this machine.
"""
