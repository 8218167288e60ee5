"""Requirements with the hash of every package that pip would install."""

import json
import subprocess
import sys
from collections.abc import Sequence

from errors import UserError

HEADER = "# Packages for {platform}; elsewhere, install without hashes: {names}\n"


def locked(requirements: Sequence[str]) -> str:
    """`requirements.txt` for pip's hash-checking mode: these packages and all that they need, for this platform.

    pip resolves them without installing anything. Raises `UserError` when it cannot, as without a network.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--report", "-", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
        lines = [
            f"{item['metadata']['name']}=={item['metadata']['version']} "
            f"--hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}\n"
            for item in report["install"]
        ]
        environment = report["environment"]
        machine = f"{environment['sys_platform']} {environment['platform_machine']}"
        platform = f"Python {environment['python_version']} on {machine}"
    except (ValueError, KeyError, TypeError) as error:
        why = next(iter(reversed(done.stderr.strip().splitlines())), str(error))
        raise UserError(f"pip cannot resolve {', '.join(requirements)}: {why}", "leave out --hashes") from None
    return HEADER.format(platform=platform, names=" ".join(requirements)) + "".join(sorted(lines, key=str.lower))
