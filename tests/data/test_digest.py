"""The hash of a task's data can be computed without conpet, as `docs/how-to/audit.md` says."""

from __future__ import annotations

import json
from hashlib import sha256

from conpet import Example, Task


def test_the_hash_of_the_data_is_the_documented_one() -> None:
    subsets = {
        "train": [("Karte weg: \u6b7b", "lost"), ("ok", "other")],
        "validation": [("my card is gone", "lost")],
        "test": [],
    }
    made = {
        name: tuple(Example.of_text(text, label=label, id=f"{name}-1") for text, label in rows)
        for name, rows in subsets.items()
    }
    hashes = {
        name: sha256(
            "".join(
                json.dumps({"kind": "text", "label": label, "text": text}, sort_keys=True, ensure_ascii=False) + "\n"
                for text, label in rows
            ).encode()
        ).hexdigest()
        for name, rows in subsets.items()
    }
    document = json.dumps({**hashes, "template": None, "settings": {}}, sort_keys=True)
    assert Task("cards", **made).digest == sha256(document.encode()).hexdigest()
