"""Words of others, names of files among them, as a terminal may print them."""


def printable(text: str, kept: str = "") -> str:
    """Replace what a terminal would act on, and what is no text, but for the characters kept."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    """Return the text as one printable line."""
    return printable(" ".join(line.strip() for line in text.splitlines()))


def shortened(text: str, most: int) -> str:
    """Return so many characters at most: the middle goes, as an error ends in its remedy."""
    start = most // 2
    return text if len(text) <= most else f"{text[:start]}…{text[start + 1 - most :]}"
