"""A small CRM whose slow work is done by limetask: an example to copy from."""
