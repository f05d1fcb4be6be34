"""Trees of reference pages as tools generate them: the same sections and parameters on every page."""

import random
from pathlib import Path

VERBS = ("Get", "Set", "New", "Remove", "Start", "Stop", "Invoke", "Update", "Export", "Import")
NOUNS = ("Item", "Process", "Service", "Session", "Job", "Module", "Event", "Volume", "Certificate", "Policy")
SHARED = {
    "ComputerName": "Specifies the computers on which the command runs. The default is the local computer.",
    "Credential": "Specifies a user account that has permission to perform this action on the computer.",
    "Confirm": "Prompts you for confirmation before running the cmdlet, whatever the preferences are.",
    "WhatIf": "Shows what would happen if the cmdlet runs. The cmdlet is not run at all in this case.",
    "Force": "Performs the action without a message that asks whether it should really be performed.",
}
OWN = ("Name", "Path", "ScriptBlock", "Filter", "Depth", "Timeout", "Encoding", "Schedule")
COMMON = (
    "This cmdlet supports the common parameters: -Debug, -ErrorAction, -ErrorVariable, -OutVariable, "
    "-OutBuffer, -PipelineVariable, -Verbose, -WarningAction, and -WarningVariable."
)


def write_reference_pages(root: Path, pages: int, seed: int = 0) -> None:
    """``pages`` pages of cmdlets below ``root``, one folder for each noun. At most 1,000."""
    words = [f"{first}{second}" for first in ("lock", "cache", "quota", "trace") for second in range(40)]
    names = [(verb, f"{noun}{number or ''}") for number in range(10) for noun in NOUNS for verb in VERBS]
    for verb, noun in names[:pages]:
        generator = random.Random(f"{seed} {verb} {noun}")
        folder = root / noun
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{verb}-{noun}.md").write_text(_page(verb, noun, words, generator), encoding="utf-8")


def _page(verb: str, noun: str, words: list[str], generator: random.Random) -> str:
    name = f"{verb}-{noun}"

    def sentence(subject: str) -> str:
        return f"{subject} " + " ".join(generator.choices(words, k=14)) + "."

    lines = [
        f"# {name}",
        "## SYNOPSIS",
        sentence(f"{verb}s a {noun.lower()} and"),
        "## SYNTAX",
        "### ComputerSet (Default)",
        f"```\n{name} [[-Name] <String[]>] [-ComputerName <String[]>] [<CommonParameters>]\n```",
        "## DESCRIPTION",
        sentence(f"The {name} cmdlet {verb.lower()}s the"),
        sentence("It works with"),
        "## EXAMPLES",
        "### Example 1",
        f"```\nPS> {name} -Name {generator.choice(words)}\n```",
        sentence("This command uses"),
        "## PARAMETERS",
    ]
    for parameter in sorted(generator.sample(OWN, 4)):
        lines += [f"### -{parameter}", sentence(f"Specifies the {parameter.lower()} of the {noun.lower()}:")]
    for parameter, text in SHARED.items():
        lines += [f"### -{parameter}", text]
    lines += [
        "### CommonParameters",
        COMMON,
        "## INPUTS",
        "### None",
        "You cannot pipe objects to this cmdlet.",
    ]
    lines += [
        "## OUTPUTS",
        "### None",
        "This cmdlet does not return any output.",
        "## NOTES",
        sentence("Only"),
    ]
    return "\n\n".join(lines) + "\n"
