"""Prints what pyproject.toml asks for, with the extras on the command line: a layer without the code."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
print(*project["dependencies"], sep="\n")
waiting = list(filter(None, sys.argv[1].split(",")))
while waiting:
    for wanted in project["optional-dependencies"][waiting.pop(0)]:
        name, _, extras = wanted.partition("[")
        if name == project["name"]:  # an extra that is made of others
            waiting += extras.rstrip("]").split(",")
        else:
            print(wanted)
