"""One module a version of the schema, written by hand and never changed after its release."""
