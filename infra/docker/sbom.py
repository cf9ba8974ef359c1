"""Write what an image is made of as CycloneDX JSON: the Python packages and the Debian packages beneath them.

Run in the image's own Python while the image is built. The standard library alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")
_NAME_OF_REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


def document(
    *, version: str, revision: str, created: str, python: Iterable[Distribution], dpkg: str, os_release: str
) -> dict[str, Any]:
    """The bill of materials, the same for the same content.

    Args:
        version: of raregrade.
        revision: git commit that the image was built from.
        created: date of that commit, ISO 8601; empty where it is not known.
        python: the installed distributions.
        dpkg: content of dpkg's status file.
        os_release: content of /etc/os-release.
    """
    packages = {_normal(d.metadata["Name"]): d for d in python}
    components = [_python_component(name, packages[name]) for name in sorted(packages)]
    system = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    components += [_debian_component(fields, system) for fields in _installed(dpkg)]
    subject = {
        "type": "container",
        "bom-ref": "image",
        "name": "raregrade",
        "version": version,
        "properties": [{"name": "raregrade:revision", "value": revision}],
    }
    references = {component["name"]: component["bom-ref"] for component in components if _is_python(component)}
    depends = [{"ref": "image", "dependsOn": sorted(component["bom-ref"] for component in components)}]
    for name in sorted(packages):
        needed = {references[other] for other in _requirements(packages[name]) if other in references}
        depends.append({"ref": references[name], "dependsOn": sorted(needed - {references[name]})})
    identity = json.dumps([version, revision, *depends[0]["dependsOn"]])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, identity)}",
        "version": 1,
        "metadata": {"component": subject} | ({"timestamp": created} if created else {}),
        "components": components,
        "dependencies": depends,
    }


def _python_component(name: str, package: Distribution) -> dict[str, Any]:
    url = f"pkg:pypi/{name}@{quote(package.version)}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": package.version,
        "purl": url,
    }
    # An expression is SPDX by definition; the older field is free text, sometimes the whole licence.
    if expression := package.metadata.json.get("license_expression"):
        component["licenses"] = [{"expression": expression}]
    elif (text := package.metadata.json.get("license") or "") and "\n" not in text and len(text) <= 80:
        component["licenses"] = [{"license": {"name": text}}]
    return component


def _debian_component(fields: dict[str, str], system: dict[str, str]) -> dict[str, Any]:
    distribution = system.get("ID", "debian").strip('"')
    release = system.get("VERSION_ID", "").strip('"')
    qualifiers = f"arch={fields['Architecture']}" + (f"&distro={distribution}-{release}" if release else "")
    url = f"pkg:deb/{distribution}/{quote(fields['Package'])}@{quote(fields['Version'])}?{qualifiers}"
    return {
        "type": "library",
        "bom-ref": url,
        "name": fields["Package"],
        "version": fields["Version"],
        "purl": url,
    }


def _installed(dpkg: str) -> Iterator[dict[str, str]]:
    """The fields of each installed Debian package, by name."""
    entries = [
        dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE)) for paragraph in dpkg.strip().split("\n\n")
    ]
    yield from sorted((e for e in entries if e.get("Status", "").endswith(" installed")), key=lambda e: e["Package"])


def _requirements(package: Distribution) -> set[str]:
    """Names of what ``package`` may need; extras are included, what is not installed falls out later."""
    names = (_NAME_OF_REQUIREMENT.match(text) for text in package.requires or [])
    return {_normal(found[0]) for found in names if found}


def _is_python(component: dict[str, Any]) -> bool:
    return bool(component["purl"].startswith("pkg:pypi/"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Write the bill of materials of this Python and this system."""
    parser = argparse.ArgumentParser(description="Write what this image is made of as CycloneDX JSON.")
    parser.add_argument("--version", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--created", default="")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = {_normal(d.metadata["Name"]): d.version for d in distributions()}
    if found.get("raregrade") != options.version:
        print(f"the image is to be {options.version}, but holds raregrade {found.get('raregrade')}", file=sys.stderr)
        return 1
    bill = document(
        version=options.version,
        revision=options.revision,
        created=options.created,
        python=distributions(),
        dpkg=DPKG_STATUS.read_text(encoding="utf-8") if DPKG_STATUS.is_file() else "",
        os_release=OS_RELEASE.read_text(encoding="utf-8"),
    )
    options.out.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
