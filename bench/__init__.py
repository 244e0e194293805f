"""How fast a fleet is upgraded, and how fast the same remote commands are without any of this project's durability."""
