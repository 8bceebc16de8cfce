"""Seeds that do not depend on the order of calls: each is derived from the root seed and a role."""

import hashlib


def derive(root: int, *role: str | int) -> int:
    """Derive a 63-bit seed for a role, such as `derive(config.seed, "stream", "train", 7)`."""
    text = "/".join(str(part) for part in (root, *role))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
