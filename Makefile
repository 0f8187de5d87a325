# Each target sets up what it needs, also on a machine that has nothing but Python.
.DEFAULT_GOAL := help
.PHONY: help demo test versions faults soak bench check format setup up down clean

help:  ## say what there is
	@echo "limetask: make TARGET"
	@sed -n 's/^\([a-z]*\):.*## /  \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

demo:  ## see a task's whole life: a CRM, two applications, one worker (a minute)
	@scripts/setup
	@.venv/bin/python scripts/demo

test:  ## run all tests against a real RabbitMQ, PostgreSQL and SQLite; ARGS="tests/unit -k codec" for some
	@scripts/test $(ARGS)

versions:  ## the unit tests and a short end-to-end run with every other Python that is here (2 minutes)
	@scripts/versions $(ARGS)

faults:  ## break everything on purpose, at length, and write docs/reliability.md (a quarter of an hour or more)
	@scripts/faults

soak:  ## half an hour of load with a fault a minute: is memory flat? writes docs/reliability.md, too
	@scripts/faults --soak 30

bench:  ## measure limetask beside its peers, and write docs/benchmarks.md (25 minutes); ARGS="--quick" for a look
	@scripts/bench $(ARGS)

check:  ## format, lint, types and layers, without running anything
	@scripts/check

format:  ## format the code
	@scripts/setup
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

setup:  ## make the virtual environment .venv
	@scripts/setup

up:  ## start a RabbitMQ and a PostgreSQL for development, and print their URLs
	@scripts/rabbitmq up
	@scripts/postgresql up

down:  ## stop what `make up` started
	@scripts/rabbitmq down
	@scripts/pgbouncer down
	@scripts/postgresql down
	@scripts/redis down

clean: down  ## stop the services, and remove the virtual environment and caches
	@rm -rf .venv* .services .setup.lock build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
