"""Reports of a run, in the forms people and machines read."""
