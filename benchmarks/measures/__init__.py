"""What is measured of one system in one run; each function puts its figures into the visit."""
