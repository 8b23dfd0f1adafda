"""Settings → services: the only place that chooses implementations and connects them.

One module per group of services. Each builds its group from the settings and the groups below it.
`groups` builds a group when it is used, for commands; `services` builds all, for the web and the
worker. This module imports neither: a command loads only the groups that it uses.
"""
