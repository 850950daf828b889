"""The checkers that come with the daemon, and how they are found and put in a row.

`installed` finds plugins and `help` lists them; `configured` makes those of ``[auth]``: a `chain`, each `watched`. Ours
are `file`, `http` (`http_options`, `http_answer`), `jwt`, `mongo` and `anonymous`. Every `twistd` imports their
factories, so these are small and apart: `file_factory`, `http_factory`, `jwt_factory`, `mongo_factory`.
"""
