"""Sign the head of a workspace's history, so that nobody without the key can write another one."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conpet.commands.audit import Head, head, verify_workspace
from conpet.errors import ConfigError, CorruptionError, DataError, plural
from conpet.store import Store
from conpet.store.prediction_log import PredictionLog

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError as error:
    raise ConfigError("signing needs the package cryptography: pip install 'conpet[audit]'") from error

_FORM = "conpet history 1"
"""What a signature is for, and the form of the signed text."""


def new_key(path: Path) -> Path:
    """Write a new Ed25519 key, readable by its owner alone, and its public key beside it; return the latter's path.

    Raises:
        ConfigError: One of the files exists.
    """
    public_path = path.with_name(f"{path.name}.pub")
    for file in (path, public_path):
        if file.exists():
            raise ConfigError(f"{file} exists; name another file, a key is never replaced")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(private)
    public_path.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return public_path


def sign(store: Store, key: Path, log: PredictionLog | None = None) -> dict[str, Any]:
    """Return a checkpoint: the head of a workspace's history with the time and a signature, JSON-ready.

    Args:
        store: The workspace's store.
        key: An Ed25519 private key in PEM, without a password.
        log: The record of predictions, if it lies outside the workspace's folder.

    Raises:
        ConfigError: The key cannot be read.
        CorruptionError: The workspace is not what its history recorded: a signature would seal that.
    """
    private = private_key(key)
    if found := verify_workspace(store, log=log):
        raise CorruptionError(
            f"nothing was signed: {store.path} differs from what was recorded in {plural(len(found), 'place')}, first: "
            f"{found[0]}. See `conpet audit verify`"
        )
    signed = {"head": str(head(store, log)), "time": datetime.now(UTC).isoformat(timespec="seconds")}
    return {**signed, "signature": private.sign(_text(signed)).hex()}


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key in PEM.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not an Ed25519 private key without a password: {error}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{path} is a key of another kind; make an Ed25519 key with `conpet audit key`")
    return private


def check_signature(text: bytes, signature: str, public_key: Path, what: Path) -> None:
    """Check the signature of a text.

    Args:
        text: What was signed.
        signature: The signature in hexadecimal.
        public_key: The public key in PEM.
        what: The file that has the text, for messages.

    Raises:
        ConfigError: The public key cannot be read.
        DataError: The text was not signed with this key.
    """
    try:
        public = serialization.load_pem_public_key(public_key.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{public_key} is not a public key: {error}") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(f"{public_key} is a key of another kind; give the .pub file of `conpet audit key`")
    try:
        public.verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        raise DataError(f"{what} was changed, or was not signed with the key of {public_key}") from None


def checked(checkpoint: Path, public_key: Path) -> Head:
    """Return the head in a checkpoint.

    Args:
        checkpoint: A file with what `sign` returned.
        public_key: The public key in PEM.

    Raises:
        ConfigError: The public key cannot be read.
        DataError: The file is no checkpoint, or was not signed with this key.
    """
    try:
        document = json.loads(checkpoint.read_text(encoding="utf-8"))
        signed = {name: str(document[name]) for name in ("head", "time")}
        signature = str(document["signature"])
        noted = Head.parse(signed["head"])
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{checkpoint} is not a checkpoint that `conpet audit sign` wrote: {error}") from None
    check_signature(_text(signed), signature, public_key, checkpoint)
    return noted


def _text(signed: dict[str, str]) -> bytes:
    return "\n".join([_FORM, signed["head"], signed["time"]]).encode()
