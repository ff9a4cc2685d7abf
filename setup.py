"""
What is packed; who, what and with which tools stands in pyproject.toml.

C{twisted.plugins} is not ours: one module is put into it, and there must never
be an C{__init__.py} under C{twisted/}, for it would hide Twisted itself.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gomux", "gomux.*"]), "twisted.plugins"],
    # Spelled out, this makes an editable install put the checkout on sys.path.
    # Left out, it becomes an import hook, and Twisted looks for plugins in
    # sys.path only: "twistd gomux" would be unknown.
    package_dir={"": "."},
    package_data={"gomux": ["py.typed"], "gomux.test": ["vectors/*"]},
    include_package_data=False,
)
