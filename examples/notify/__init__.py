"""An e-mail for every task that fails: an example to copy from."""
