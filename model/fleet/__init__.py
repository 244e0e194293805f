"""The fleet file: parsed, validated, and turned into the FleetSpec that workflows carry."""
