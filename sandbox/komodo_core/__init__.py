"""A simulated Komodo Core, v1 and v2.

`program` and `startup` start it, `core` watches the servers, `api`, `read` and `execute` answer requests.
"""
