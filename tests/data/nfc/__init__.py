"""Golden NFC messages (README.md)."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def golden(name: str) -> dict[str, bytes]:
    """The sections "client" and "server" of a message file as bytes."""
    sections: dict[str, bytearray] = {}
    current: bytearray | None = None
    for line in (_FOLDER / f"{name}.hex").read_text(encoding="ascii").splitlines():
        text = line.partition("#")[0].strip()
        if text.endswith(":"):
            current = sections.setdefault(text[:-1], bytearray())
            continue
        for token in text.split():
            octet, _, times = token.partition("*")
            assert current is not None, f"{name}: octets before a section"
            current += bytes.fromhex(octet) * int(times or 1)
    return {section: bytes(data) for section, data in sections.items()}


def names() -> list[str]:
    """All message files."""
    return sorted(path.stem for path in _FOLDER.glob("*.hex"))
