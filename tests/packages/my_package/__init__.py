"""The package of the documents' examples."""
