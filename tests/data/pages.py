"""Pages of Markdown on any topic, and the chunks to cut them into."""

SMALL = {"min_characters": 200, "max_characters": 800}


def page(topic: str, number: int) -> str:
    """Three sections that say different things of a topic."""
    begin = f"Everything about {topic} {number} begins with its place {number * 7}."
    parts = [f"# The {topic} number {number}\n\n{begin}"]
    for verb in ("made", "used", "mended"):
        words = " ".join(f"{verb}{topic}{number}word{index}" for index in range(30))
        parts.append(f"## How the {topic} is {verb}\n\nIt is {verb} in the way of {topic} {number}. {words}.")
    return "\n\n".join(parts) + "\n"
