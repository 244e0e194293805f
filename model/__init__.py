"""What crosses the wire and what people write: frozen dataclasses, the fleet file, one exception tree. No I/O."""
