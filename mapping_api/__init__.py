"""The mapping service: which provider serves which hub model, under what name, and how well."""
