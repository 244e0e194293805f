"""A simulated MongoDB or FerretDB: documents, wire protocol, and the tools that dump and restore them."""
