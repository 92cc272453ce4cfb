"""What an attacker can do to a bundle."""

import hashlib
import json


def vouch_for(folder, names=None):
    """Makes the recorded sizes and hashes those of the files, or of some of them."""
    data = json.loads((folder / "bundle.json").read_text())
    for name in data["files"] if names is None else names:
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        data["files"][name] = {"bytes": len(content), "sha256": digest}
    (folder / "bundle.json").write_text(json.dumps(data))
