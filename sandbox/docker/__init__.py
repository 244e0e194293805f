"""A simulated Docker: the engine with its containers and images, the client, and Compose v2.

`engine` knows containers, `processes` which program an image runs, `cli` and `compose_cli` the commands.
"""
