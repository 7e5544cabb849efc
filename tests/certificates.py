"""Certificates for tests, made by openssl: each is its own CA."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path, name: str = "cert", hosts: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """The files of a certificate and of its key, good for two days; a skip where openssl is not installed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: it makes the certificate")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ["-subj", "/CN=test", "-addext", f"subjectAltName={hosts}", "-days", "2"]
    keys = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(key)]
    subprocess.run([openssl, "req", "-x509", *keys, *subject, "-out", str(cert)], check=True, capture_output=True)
    return cert, key
