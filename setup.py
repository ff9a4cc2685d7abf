"""
Which packages and other files the distribution has; all other metadata is in
pyproject.toml.

C{twisted.plugins} belongs to Twisted; this project adds one module to it.  There must
never be an C{__init__.py} under C{twisted/}, because it would hide Twisted itself.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gomux", "gomux.*"]), "twisted.plugins"],
    # Spelled out, this makes an editable install put the checkout on sys.path.
    # Left out, it becomes an import hook, and Twisted looks for plugins in
    # sys.path only: "twistd gomux" would be unknown.
    package_dir={"": "."},
    package_data={
        "gomux": ["py.typed"],
        "gomux.status": ["page/*"],
        "gomux.test": ["vectors/*"],
    },
    include_package_data=False,
    data_files=[("share/man/man1", ["man/gomux.1", "man/twistd-gomux.1"])],
)
