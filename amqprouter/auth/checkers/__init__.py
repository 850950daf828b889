"""The checkers that come with the daemon, and how they are found and put in a row.

`installed` finds plugins, `configured` makes those of ``[auth]``: a `chain`, each `watched`. `file`, `http`, `jwt`,
`mongo` and `anonymous` are ours; the factories are small, for every `twistd` imports them.
"""
