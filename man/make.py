"""
Make the manual pages in this folder from the options:

    python man/make.py
"""

from pathlib import Path

from gomux.tap import Options
from gomux.tunnel.command._manual import pages

for name, text in pages(Options()).items():
    Path(__file__).with_name(name).write_text(text, encoding="utf-8")
