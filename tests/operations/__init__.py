"""The procedures of docs/operating.md, run as they are written.

Every `sh` block of the guide is run by a test of this folder; `test_guide.py` fails for a block
that no test runs. To add a procedure:

1. Write the block into docs/operating.md. What the reader has to fill in is a variable of the shell
   (`flask keys revoke "$KID" --yes`), explained in the text before the block.
2. Write a test that prepares the incident, runs the block and looks at what came of it:

       def test_a_stolen_key_is_revoked(stage: Stage) -> None:
           stage.service.start()
           …
           stage.run("A stolen signing key", KID=stolen)
           …

   `stage.run(section, number=1, **variables)` runs the block with that number under that heading by
   `bash -e` in a copy of the project and returns its output; it fails where the block does. Section
   and number are written out, because `test_guide.py` reads them from the source.
   `stage.start(section, number)` does the same for what runs until it is stopped.

`stage.environment` has the settings of the deployment; change it before `stage.service.start()`.
PostgreSQL, Redis, Gunicorn, `flask`, `createdb`, `pg_restore`, `redis-cli` and `openssl` are real.
`docker`, `kubectl`, `pip` and the like are played by `stand_ins.py`, which checks what it is given
and runs the command inside (`docker compose run --rm service flask …`).
"""
