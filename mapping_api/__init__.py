"""The mapping service: which provider serves which hub model. Nothing is built here yet."""
