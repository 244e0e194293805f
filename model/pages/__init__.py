"""Large fleets in pages: the steps on the servers of a page, and the result of a run in parts."""
