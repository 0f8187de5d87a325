"""A web platform that patches Python when it is imported, as some do for their web server."""
