"""Packages are found, not listed; `conf/` is installed as `alfm/conf`. All else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["alfm", "alfm.*"]), "alfm.conf"], package_dir={"alfm.conf": "conf"})
