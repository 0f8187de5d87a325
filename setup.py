# setup.cfg holds the metadata; it cannot say that packages stand under two roots.
from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["limetask", "limetask.*", "lime_task"]), *find_packages("worker")],
    package_dir={"limetask_worker": "worker/limetask_worker"},
)
